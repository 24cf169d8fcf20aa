//! The keys that a configuration can't do without.
//!
//! Owns them, with the question for each and the answer that most devices give. Never asks.

use std::path::Path;

use super::layers::Layers;
use super::{ConfigError, Endpoint, SCHEMA, Settings, VENDOR_DIRECTORY, value};

/// A key without a default.
#[derive(Debug)]
pub struct Required {
    /// Its section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The option of `edgerepl init` for it.
    pub option: &'static str,
    /// What to ask a person.
    pub question: &'static str,
    /// What most devices have.
    pub usual: Option<&'static str>,
    /// Whether a value can work, or the end of a sentence that says why not.
    trial: fn(&str) -> Result<(), String>,
}

/// One key is there once.
impl PartialEq for Required {
    fn eq(&self, other: &Self) -> bool {
        (self.section, self.key) == (other.section, other.key)
    }
}

impl Required {
    /// All of them, by section.
    pub const ALL: [Self; 7] = [
        required(
            ("identity", "certificate", "certificate"),
            "The device's certificate, a path",
            Some("/data/edgerepl/device.crt"),
            |text| value::absolute_path(text).map(drop),
        ),
        required(
            ("identity", "private_key", "private-key"),
            "Its private key, a PKCS#11 URI or a path",
            Some("/data/edgerepl/device.key"),
            |text| value::private_key(text).map(drop),
        ),
        required(
            ("credentials", "endpoint", "endpoint"),
            "The endpoint, as `aws iot describe-endpoint --endpoint-type iot:CredentialProvider` says it",
            None,
            |text| text.parse::<Endpoint>().map(drop),
        ),
        required(
            ("credentials", "role_alias", "role-alias"),
            "The role alias",
            Some("edgerepl"),
            |text| value::role_alias(text).map(drop),
        ),
        required(
            ("credentials", "region", "region"),
            "The bucket's region",
            None,
            |text| value::region(text).map(drop),
        ),
        required(
            ("replication", "bucket", "bucket"),
            "The bucket",
            None,
            |text| value::bucket(text).map(drop),
        ),
        required(
            ("database", "path", "database"),
            "The database, a path",
            Some("/data/app/app.db"),
            |text| value::absolute_path(text).map(drop),
        ),
    ];

    /// Whether a value for it can work.
    ///
    /// # Errors
    /// Why not, with the option's name.
    pub fn parse(&self, text: &str) -> Result<(), String> {
        (self.trial)(text).map_err(|cause| format!("--{} {cause}", self.option))
    }
}

const fn required(
    (section, key, option): (&'static str, &'static str, &'static str),
    question: &'static str,
    usual: Option<&'static str>,
    trial: fn(&str) -> Result<(), String>,
) -> Required {
    Required {
        section,
        key,
        option,
        question,
        usual,
        trial,
    }
}

impl Settings {
    /// The keys that no layer of `main` sets. A bucket is not missing where Litestream has a configuration
    /// of its own.
    ///
    /// # Errors
    /// Where a layer can't be read.
    pub fn missing(main: &Path) -> Result<Vec<&'static Required>, ConfigError> {
        let layers = Layers::read_or_none(Path::new(VENDOR_DIRECTORY), main, SCHEMA)?;
        let is_set = |section, key| {
            let mut sections = layers.sections(section);
            sections.next().is_some_and(|section| section.has(key))
        };
        let is_missing = |required: &&Required| {
            let has_command = required.key == "bucket" && is_set("replication", "command");
            !is_set(required.section, required.key) && !has_command
        };
        Ok(Required::ALL.iter().filter(is_missing).collect())
    }
}
