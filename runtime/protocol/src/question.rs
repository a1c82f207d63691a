//! Questions: what a task asks and waits with.

use serde::{Deserialize, Serialize};

use crate::{Permission, QuestionId, TaskId, Timestamp};

/// A question that parks a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Its id.
    pub id: QuestionId,
    /// The task it parks.
    pub task: TaskId,
    /// What it is about.
    #[serde(default)]
    pub subject: Subject,
    /// The question in words, for people.
    pub text: String,
    /// What may be answered; empty for free text.
    pub choices: Vec<String>,
    /// The answer, once given.
    pub answer: Option<String>,
    /// When it was asked.
    pub created_at: Timestamp,
    /// When it was answered; without an answer, when it was closed because its task had gone back to before it.
    pub answered_at: Option<Timestamp>,
}

impl Question {
    /// A question that is open.
    pub fn new(task: TaskId, subject: Subject, text: impl Into<String>, choices: Vec<String>, created_at: Timestamp) -> Self {
        let (id, text) = (QuestionId::new(), text.into());
        Self { id, task, subject, text, choices, answer: None, created_at, answered_at: None }
    }

    /// True of one that can still be answered. A task has at most one of these.
    pub fn is_open(&self) -> bool {
        self.answer.is_none() && self.answered_at.is_none()
    }
}

/// What a question is about. Who answers it, who reads the answer and what it decides follows from this and never from its words,
/// some of which are a model's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Subject {
    /// What a model asked in its own words: the answer is the next message of the conversation.
    #[default]
    Conversation,
    /// Whether calls of a turn may be made.
    Calls {
        /// The turn's place in the conversation.
        place: usize,
        /// The tools that need to be allowed, each once.
        tools: Vec<String>,
        /// A hash of the calls that need it: another turn may come to have the same place.
        calls: String,
    },
    /// Whether an agent of somebody else's making may do what it asked for.
    Permission {
        /// What it asked for.
        asked: Permission,
    },
    /// Nobody has to answer: the task goes on once one of these has ended.
    Children {
        /// Tasks that belong to this one.
        tasks: Vec<TaskId>,
    },
    /// More money or tokens for the task.
    Budget,
    /// Something to be mended: before that nobody who could answer the task's model calls takes them.
    Model,
    /// Whether the task may go on over a limit of the day. Nobody has to answer: it goes on by itself once the day has turned.
    Day {
        /// When it turns.
        until: Timestamp,
    },
}

impl Subject {
    /// True where whoever lets the task go on says with it that what was asked for was given or done.
    pub fn is_answered_by_going_on(&self) -> bool {
        matches!(self, Self::Budget | Self::Model)
    }

    /// True where nobody has to answer: the node does, once what the task waits for has come.
    pub fn is_answered_by_itself(&self) -> bool {
        matches!(self, Self::Children { .. } | Self::Day { .. })
    }

    /// True where an answer may be in anybody's own words, beside the choices: somebody reads it.
    pub fn takes_words(&self) -> bool {
        matches!(self, Self::Conversation | Self::Calls { .. } | Self::Permission { .. })
    }
}
