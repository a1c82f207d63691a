//! Pins: rows of the family `pins`.

use helix_objects::{ObjectError, Pin};
use helix_protocol::{Epoch, ObjectId, TaskId};
use rocksdb::{Direction, IteratorMode, WriteBatch};

use super::{Engine, PINS, failed};

impl Engine {
    pub(crate) fn add_pins(&self, batch: &mut WriteBatch, pin: Pin, ids: &[ObjectId]) {
        for id in ids {
            batch.put_cf(self.family(PINS), pin_key(pin, *id), []);
        }
    }

    /// Adds the deletion of every pin of the task up to and including the epoch.
    pub(crate) fn add_release(&self, batch: &mut WriteBatch, up_to: Pin) -> Result<(), ObjectError> {
        let first = pin_key(Pin { epoch: Epoch(0), ..up_to }, ObjectId([0; 32]));
        for item in self.db.iterator_cf(self.family(PINS), IteratorMode::From(&first, Direction::Forward)) {
            let (key, _) = item.map_err(failed)?;
            if pin_of(&key)?.0 > up_to {
                break;
            }
            batch.delete_cf(self.family(PINS), key);
        }
        Ok(())
    }

    pub(crate) fn pins(&self) -> Result<Vec<(Pin, ObjectId)>, ObjectError> {
        self.db.iterator_cf(self.family(PINS), IteratorMode::Start).map(|item| pin_of(&item.map_err(failed)?.0)).collect()
    }
}

fn pin_key(pin: Pin, id: ObjectId) -> [u8; 56] {
    let mut key = [0; 56];
    key[..16].copy_from_slice(pin.task.0.as_bytes());
    key[16..24].copy_from_slice(&pin.epoch.0.to_be_bytes());
    key[24..].copy_from_slice(&id.0);
    key
}

fn pin_of(key: &[u8]) -> Result<(Pin, ObjectId), ObjectError> {
    let damaged = || ObjectError::Damaged("a pin record is damaged".to_owned());
    let (task, rest) = key.split_first_chunk::<16>().ok_or_else(damaged)?;
    let (epoch, id) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
    let id = <[u8; 32]>::try_from(id).map_err(|_| damaged())?;
    let pin = Pin { task: TaskId(uuid::Uuid::from_bytes(*task)), epoch: Epoch(u64::from_be_bytes(*epoch)) };
    Ok((pin, ObjectId(id)))
}
