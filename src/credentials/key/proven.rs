//! A key whose every signature is verified before it leaves the device.
//!
//! Owns that verification, in software, with the certificate's public key. A bus that lost a bit or
//! a chip that was busy gets a second try. A key that belongs to another certificate is reported
//! here, where the cause is certain; a server's alert would leave it to guess.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};

use super::SignerFailed;
use crate::credentials::{FailureClass, FetchFailure};

/// Signatures that are made where they turn out wrong.
const TRIES: u32 = 2;

/// Has each signature of `key` verified with a certificate's public key, given as the BIT STRING in
/// it, before anybody sees it; a wrong one is made anew, once.
///
/// Signing then fails with class `Refused` where the key is another certificate's.
pub fn prove(key: Arc<dyn SigningKey>, public_key: &[u8]) -> Arc<dyn SigningKey> {
    Arc::new(Proven {
        inner: key,
        public_key: public_key.into(),
    })
}

struct Proven<T> {
    inner: T,
    public_key: Arc<[u8]>,
}

impl SigningKey for Proven<Arc<dyn SigningKey>> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Proven {
            inner: self.inner.choose_scheme(offered)?,
            public_key: Arc::clone(&self.public_key),
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.inner.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

impl Signer for Proven<Box<dyn Signer>> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        for _ in 0..TRIES {
            let signature = self.inner.sign(message)?;
            if self.verifies(message, &signature) {
                return Ok(signature);
            }
            log::warn!("the private key made a signature that its certificate does not verify");
        }
        let message = "the private key does not belong to the certificate: a signature by it does \
                       not verify with the certificate's public key";
        Err(SignerFailed(FetchFailure::new(FailureClass::Refused, message)).into())
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}

impl Proven<Box<dyn Signer>> {
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithms = ring::default_provider().signature_verification_algorithms;
        algorithms
            .mapping
            .iter()
            .filter(|(scheme, _)| *scheme == self.inner.scheme())
            .flat_map(|(_, candidates)| *candidates)
            .any(|algorithm| {
                algorithm
                    .verify_signature(&self.public_key, message, signature)
                    .is_ok()
            })
    }
}

impl<T: fmt::Debug> fmt::Debug for Proven<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
