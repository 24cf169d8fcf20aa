//! The device's private key: a reference to it, and a signer that uses it.
//!
//! Owns the choice between a PEM file and a PKCS#11 token, and the common interface of both: a
//! rustls [`SigningKey`] that reports when it signs, and whose signatures can be checked with the
//! certificate. Never exports a key, never hashes on a chip, never logs a PIN.

mod pem;
mod pin;
mod pkcs11;
mod proven;

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::hash::Output;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::sign::{Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};

use super::stage::{OnStage, Stage};
use super::{FailureClass, FetchFailure};
use crate::config::{Pkcs11Uri, PrivateKey};

pub use proven::prove;

/// Opens the key: loads the module, logs in, finds the object; or reads the file.
///
/// Reports [`Stage::Key`] before that, and later [`Stage::Signature`] before each signature and
/// [`Stage::Network`] after it, so that a watcher of a process that hangs knows what hung it.
/// Dropping the key logs out and unloads the module. A PIN that the token refuses is remembered in
/// the file `refused_pin`, which belongs on tmpfs, and not offered again while it is there.
///
/// # Errors
/// [`FailureClass`] `Refused` where a file is missing or malformed,
/// `WrongPin` where the token refused the PIN, `Key` for all else that the module or token says.
pub fn open(
    key: &PrivateKey,
    refused_pin: &Path,
    on_stage: &OnStage,
) -> Result<Arc<dyn SigningKey>, FetchFailure> {
    on_stage(Stage::Key);
    let key = match key {
        PrivateKey::Pem(path) => pem::open(path)?,
        PrivateKey::Pkcs11(uri) => pkcs11::open(uri, refused_pin)?,
    };
    Ok(watch(key, on_stage))
}

/// What the module and the token say of themselves, for a person.
///
/// # Errors
/// As [`open`]; no PIN is read.
pub fn describe(uri: &Pkcs11Uri, on_stage: &OnStage) -> Result<String, FetchFailure> {
    on_stage(Stage::Key);
    pkcs11::describe(uri)
}

/// A kind of key that a token can be asked to make.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewKey {
    /// ECDSA on P-256.
    P256,
    /// RSA with 2048 bits.
    Rsa2048,
}

/// Makes a new key pair in the token, under the name that `key` gives it.
///
/// # Errors
/// As [`open`]; `Refused` also where there is a key of that name, or where the key is in a file.
pub fn generate(
    key: &PrivateKey,
    kind: NewKey,
    refused_pin: &Path,
    on_stage: &OnStage,
) -> Result<(), FetchFailure> {
    on_stage(Stage::Key);
    match key {
        PrivateKey::Pkcs11(uri) => pkcs11::generate(uri, refused_pin, kind),
        PrivateKey::Pem(path) => {
            let message = format!(
                "edgerepl generates keys in tokens only, and {} is a file: use openssl genpkey",
                path.display()
            );
            Err(FetchFailure::new(FailureClass::Refused, message))
        }
    }
}

/// Opens the key, and answers with its public half too: a SubjectPublicKeyInfo, DER.
///
/// # Errors
/// As [`open`].
pub fn open_with_public_key(
    key: &PrivateKey,
    refused_pin: &Path,
    on_stage: &OnStage,
) -> Result<(Arc<dyn SigningKey>, Vec<u8>), FetchFailure> {
    on_stage(Stage::Key);
    match key {
        PrivateKey::Pkcs11(uri) => {
            let key = pkcs11::open(uri, refused_pin)?;
            let public = key.read_public_key()?;
            Ok((watch(key, on_stage), public))
        }
        PrivateKey::Pem(path) => {
            let key = pem::open(path)?;
            let public = key.public_key().map(|info| info.to_vec());
            let none = || {
                let message = format!("{} holds no public key", path.display());
                FetchFailure::new(FailureClass::Refused, message)
            };
            Ok((watch(key, on_stage), public.ok_or_else(none)?))
        }
    }
}

/// The failure of a key's signer that rustls carried here, if that is what `error` is.
pub(super) fn failure_in(error: &rustls::Error) -> Option<FetchFailure> {
    match error {
        rustls::Error::Other(OtherError(inner)) => inner
            .downcast_ref::<SignerFailed>()
            .map(|failed| failed.0.clone()),
        _ => None,
    }
}

/// Made in software: a secure element may hash nothing.
fn sha256(message: &[u8]) -> Output {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 suite");
    suite.common.hash_provider.hash(message)
}

/// Why a key did not sign, if only a key can be the cause of `error`.
pub(crate) fn why_unsigned(error: &rustls::Error) -> FetchFailure {
    failure_in(error).unwrap_or_else(|| {
        let message = format!("the private key does not sign: {error}");
        FetchFailure::new(FailureClass::Key, message)
    })
}

/// A failure that passes through rustls.
#[derive(Debug)]
struct SignerFailed(FetchFailure);

impl Error for SignerFailed {}

impl fmt::Display for SignerFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl From<SignerFailed> for rustls::Error {
    fn from(failed: SignerFailed) -> Self {
        Self::Other(OtherError(Arc::new(failed)))
    }
}

fn watch(key: Arc<dyn SigningKey>, on_stage: &OnStage) -> Arc<dyn SigningKey> {
    Arc::new(Watched {
        inner: key,
        on_stage: Arc::clone(on_stage),
    })
}

/// A key that reports when it signs.
struct Watched<T> {
    inner: T,
    on_stage: OnStage,
}

impl SigningKey for Watched<Arc<dyn SigningKey>> {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let inner = self.inner.choose_scheme(offered)?;
        Some(Box::new(Watched {
            inner,
            on_stage: Arc::clone(&self.on_stage),
        }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.inner.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.inner.algorithm()
    }
}

impl Signer for Watched<Box<dyn Signer>> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        (self.on_stage)(Stage::Signature);
        let signature = self.inner.sign(message);
        (self.on_stage)(Stage::Network);
        signature
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}

impl<T: fmt::Debug> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::credentials::certificate::Certificate;

    /// There is no PIN here to be remembered.
    const NOWHERE: &str = "/nonexistent";

    fn testdata(name: &str) -> PathBuf {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/credentials/testdata"
        ))
        .join(name)
    }

    #[test]
    fn signs_with_each_kind_of_pem_and_says_when() {
        for (key, certificate) in [
            ("ec.sec1", "ec"),
            ("ec.pkcs8", "ec"),
            ("rsa.pkcs1", "rsa"),
            ("rsa.pkcs8", "rsa"),
        ] {
            let stages = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&stages);
            let on_stage: OnStage = Arc::new(move |s| seen.lock().expect("sound").push(s));
            let reference = PrivateKey::Pem(testdata(&format!("{key}.pem")));
            let key = open(&reference, NOWHERE.as_ref(), &on_stage).expect(key);
            let certificate =
                Certificate::read(&testdata(&format!("{certificate}.crt"))).expect(certificate);
            assert_eq!(certificate.self_test(&key), Ok(()));
            let expected = [Stage::Key, Stage::Signature, Stage::Network];
            assert_eq!(*stages.lock().expect("sound"), expected);
        }
    }

    #[test]
    fn hashes_in_software() {
        let digest = sha256(b"abc");
        assert_eq!(digest.as_ref()[..4], [0xba, 0x78, 0x16, 0xbf]);
        assert_eq!(digest.as_ref().len(), 32);
    }

    #[test]
    fn refuses_what_holds_no_usable_key() {
        for (name, why) in [
            ("ec.crt", "no complete PEM block"),
            ("encrypted.pem", "encrypted"),
            ("rsa1024.pem", "2048"),
            ("absent.pem", "cannot be read"),
        ] {
            let open = open(
                &PrivateKey::Pem(testdata(name)),
                NOWHERE.as_ref(),
                &(Arc::new(|_| ()) as OnStage),
            );
            let failure = open.expect_err(name);
            assert_eq!(failure.class, FailureClass::Refused, "{name}");
            assert!(failure.message.contains(why), "{name}: {}", failure.message);
        }
    }
}
