//! The place of the device's private key: a PEM file, or a PKCS#11 token.
//!
//! Owns the text form. Never opens either, and never quotes any other text: it may be a key or a
//! PIN.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::pkcs11_uri::{self, Pkcs11Uri};

/// Where the private key is: parsed, not opened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PrivateKey {
    /// A PEM file.
    Pem(PathBuf),
    /// A key in a token.
    Pkcs11(Pkcs11Uri),
}

impl PrivateKey {
    /// Whether this is read as a PKCS#11 URI.
    pub fn is_uri(text: &str) -> bool {
        let scheme = text.get(..pkcs11_uri::SCHEME.len());
        scheme.is_some_and(|s| s.eq_ignore_ascii_case(pkcs11_uri::SCHEME))
    }
}

/// Reads a PKCS#11 URI where the text begins with `pkcs11:`, else a path.
impl FromStr for PrivateKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if Self::is_uri(text) {
            return text.parse().map(Self::Pkcs11);
        }
        if text.is_empty() || text.contains('\0') {
            return Err("the private key is neither a PKCS#11 URI nor a path".to_owned());
        }
        Ok(Self::Pem(PathBuf::from(text)))
    }
}

/// Writes what reads back as the same. There is no secret in it.
impl fmt::Display for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(path) => path.display().fmt(f),
            Self::Pkcs11(uri) => uri.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_uri_from_a_path() {
        let path = "/data/pkcs11:key.pem";
        assert_eq!(path.parse(), Ok(PrivateKey::Pem(path.into())));
        let uri = "pkcs11:object=device;type=private?module-path=/m.so";
        let key: PrivateKey = uri.parse().expect("valid");
        assert!(matches!(key, PrivateKey::Pkcs11(_)));
        assert_eq!(key.to_string(), uri);
        assert!("".parse::<PrivateKey>().is_err());
        assert!("pkcs11:".parse::<PrivateKey>().is_err());
    }
}
