//! The configuration: fragments of TOML in layers become one validated [`Settings`].
//!
//! Owns the contract of keys, defaults and limits. A `Settings` that exists can be run: whatever
//! can't work is refused here, with the file and the key named. Never opens what the paths name:
//! whether a certificate is there is a matter of the moment, and `check` and the fetch find out.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::credentials::key::PrivateKey;

/// All that edgerepl was told, checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Who the device is.
    pub identity: Identity,
    /// Where credentials come from.
    pub provider: Provider,
    /// The AWS region that Litestream is told.
    pub region: String,
    /// How long before their end credentials are renewed.
    pub renew_before: Duration,
}

/// Who the device is: `[identity]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The thing's name; where `None`, the certificate's subject CN.
    pub thing_name: Option<String>,
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// A PKCS#11 URI or the path of a PEM file.
    pub private_key: PrivateKey,
}

/// The AWS IoT Core credential provider: `[credentials]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provider {
    /// The account's endpoint.
    pub endpoint: Endpoint,
    /// The role alias to assume.
    pub role_alias: String,
    /// A bundle of PEM certificates, any of which may be the server's root.
    pub ca_file: PathBuf,
}

/// A host and a port that speak HTTPS.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// A DNS name (an IP address also works where the certificate names it).
    pub host: String,
    /// 443 unless given.
    pub port: u16,
}

/// Reads `host`, `host:port`, `https://host[:port][/]`, with an IPv6 address in brackets.
impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with("http://") {
            return Err("must be reached by https, not http".to_owned());
        }
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => {
                let port = port.parse().ok().filter(|p| *p != 0);
                (host, port.ok_or_else(|| format!("{text:?} has no usable port after the colon"))?)
            }
            _ => (authority, 443),
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let named = rustls::pki_types::ServerName::try_from(bare);
        if named.is_err() || (bare == host && bare.contains(':')) {
            return Err(format!("{text:?} is not host[:port]"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}
