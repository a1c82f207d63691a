//! What can be made to go wrong.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// Something that goes wrong a number of times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// How often.
    #[serde(default = "once")]
    pub times: u32,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum FaultKind {
    /// Another status than 200.
    Status {
        /// The status.
        status: u16,
        /// When the client shall come back, in seconds.
        #[serde(default)]
        retry_after_s: Option<f64>,
    },
    /// A 200 that is not of the format.
    Garbage,
    /// A web page.
    Page,
    /// A 200 that holds an error.
    ErrorObject,
    /// The answer ends after so many pieces, and with it the connection.
    Cut {
        /// Pieces that are sent.
        after: usize,
    },
    /// Nothing comes, and the connection stays open.
    Hang,
    /// The whole answer comes, slowly.
    Drip {
        /// Between two pieces, in milliseconds.
        every_ms: u64,
    },
}

fn once() -> u32 {
    1
}

/// What is still to go wrong: faults that were ordered through the admin endpoint come first, then each turn's own.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    ordered: Mutex<Vec<Fault>>,
    happened: Mutex<HashMap<(String, usize), u32>>,
}

impl Faults {
    /// Orders a fault for the next requests, whatever they are.
    pub fn order(&self, fault: Fault) {
        self.ordered.lock().push(fault);
    }

    /// Forgets what was ordered.
    pub fn clear(&self) {
        self.ordered.lock().clear();
    }

    /// What goes wrong with this answer.
    pub fn next(&self, scenario: &str, turn: usize, own: &[Fault]) -> Option<FaultKind> {
        let mut ordered = self.ordered.lock();
        ordered.retain(|fault| fault.times > 0);
        if let Some(fault) = ordered.first_mut() {
            fault.times -= 1;
            return Some(fault.kind.clone());
        }
        if own.is_empty() {
            return None;
        }
        let mut happened = self.happened.lock();
        let count = happened.entry((scenario.to_owned(), turn)).or_default();
        let mut before = 0;
        for fault in own {
            before += fault.times;
            if *count < before {
                *count += 1;
                return Some(fault.kind.clone());
            }
        }
        None
    }
}
