//! Settings that belong to a repository: texts by name. What they mean is their reader's business.

use bytes::Bytes;
use helix_objects::{Durability, Expect, Family, RecordChange};

use crate::VersionError;

use super::Repository;

const PREFIX: &str = "config/";

impl Repository {
    /// A setting's value.
    pub fn setting(&self, key: &str) -> Result<Option<String>, VersionError> {
        let value = self.store().record(Family::Settings, format!("{PREFIX}{key}").as_bytes())?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// Every setting, by name.
    pub fn settings(&self) -> Result<Vec<(String, String)>, VersionError> {
        let mut settings = Vec::new();
        self.each_record(Family::Settings, PREFIX.as_bytes(), |key, value| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            settings.push((text(&key[PREFIX.len()..]), text(&value)));
            Ok(())
        })?;
        Ok(settings)
    }

    /// Gives a setting a value, or takes it away; on disk when it returns.
    pub fn set_setting(&self, key: &str, value: Option<&str>) -> Result<(), VersionError> {
        let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
        let key = Bytes::from(format!("{PREFIX}{key}"));
        let change = RecordChange { family: Family::Settings, key, expect: Expect::Anything, value };
        self.store().commit(&[], &[change], Durability::Group)?;
        Ok(())
    }
}
