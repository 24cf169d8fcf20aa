//! A text file that one image's root has, and another's has not.
//!
//! Owns its place and its mode. A link to it, as of an enabled unit, is no file: a drop-in of a unit that
//! is enabled already does the same.

use std::{error::Error, path::Path};

use super::step;

/// A text file of a root.
#[derive(Clone, Debug)]
pub struct File {
    /// Its place, without the first slash.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// Its mode, such as `0o644`.
    pub mode: u32,
}

impl File {
    /// One that everybody may read.
    pub fn text(path: &str, text: impl Into<String>) -> Self {
        Self {
            path: path.to_owned(),
            text: text.into(),
            mode: 0o644,
        }
    }

    /// One that everybody may run.
    pub fn program(path: &str, text: impl Into<String>) -> Self {
        Self {
            mode: 0o755,
            ..Self::text(path, text)
        }
    }

    pub(super) fn put(&self, root: &Path) -> Result<(), Box<dyn Error>> {
        step::put_as(root, &self.path, &self.text, self.mode)
    }
}
