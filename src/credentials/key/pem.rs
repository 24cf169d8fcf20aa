//! A private key in a PEM file, for devices without a secure element and for the bench.
//!
//! Owns the reading of PKCS#8, SEC1 and PKCS#1 blocks. Never writes one, and never asks for a
//! passphrase: a device has no operator to answer.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SigningKey;

use crate::credentials::{FailureClass, FetchFailure, file, markers};

/// Reads the first private key in `path`. A certificate beside it in the file does no harm.
pub(super) fn open(path: &Path) -> Result<Arc<dyn SigningKey>, FetchFailure> {
    let pem = file::read("the private key", path, file::SMALL)?;
    let unusable = |why: &str| {
        let message = format!("the private key {} cannot be used: {why}", path.display());
        FetchFailure::new(FailureClass::Refused, message)
    };
    markers::check(&pem).map_err(|why| unusable(&why))?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| {
        unusable(match pem.windows(9).any(|word| word == b"ENCRYPTED") {
            true => "it is encrypted, and no operator is there to enter the passphrase",
            false => "it holds no complete PEM block of a PKCS#8, SEC1 or PKCS#1 key",
        })
    })?;
    any_supported_type(&key)
        .map_err(|_| unusable("it is neither ECDSA (P-256, P-384) nor RSA of 2048 bits or more"))
}
