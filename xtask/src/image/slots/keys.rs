//! Who signs bundles: an authority that the image trusts with a signer below it, and a stranger.
//!
//! Owns their keys and certificates, which are made anew with each build folder and never leave it.

use std::{error::Error, path::Path, process::Command};

use super::step;

/// The certificate that the image trusts.
pub(super) const AUTHORITY: &str = "authority.pem";

/// Whom the authority certified.
pub(super) const SIGNER: &str = "signer";

/// Who certified himself.
pub(super) const STRANGER: &str = "stranger";

pub(super) fn make(into: &Path) -> Result<(), Box<dyn Error>> {
    certificate(into, "authority", None)?;
    certificate(into, SIGNER, Some("authority"))?;
    certificate(into, STRANGER, None)
}

/// Makes `NAME.key` and `NAME.pem`.
fn certificate(into: &Path, name: &str, issuer: Option<&str>) -> Result<(), Box<dyn Error>> {
    let mut openssl = Command::new("openssl");
    openssl
        .current_dir(into)
        .args(["req", "-x509", "-noenc", "-days", "36500"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
        .args(["-subj", &format!("/CN=edgerepl test {name}")])
        .args(["-keyout", &format!("{name}.key")])
        .args(["-out", &format!("{name}.pem")]);
    if let Some(issuer) = issuer {
        openssl
            .args(["-CA", &format!("{issuer}.pem")])
            .args(["-CAkey", &format!("{issuer}.key")])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"]);
    }
    step::run(&mut openssl).map(drop)
}
