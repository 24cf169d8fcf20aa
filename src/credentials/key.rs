//! The device's private key: a reference to it, and a signer that works with it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where the private key is: parsed, not opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PrivateKey {
    /// A PEM file.
    Pem(PathBuf),
}

impl FromStr for PrivateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self::Pem(PathBuf::from(text)))
    }
}

impl fmt::Display for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(path) => path.display().fmt(f),
        }
    }
}
