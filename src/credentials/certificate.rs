//! The device's certificate: its contents, and whether the private key belongs to it.
//!
//! Owns the reading of a PEM chain. Never compares it with the clock, and never checks its issuer:
//! the server does both, and `check` reports the dates.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::SigningKey;
use rustls::{SignatureAlgorithm, crypto};
use x509_cert::der::{Decode, Encode};

use super::{FailureClass, FetchFailure, file, key, markers};
use crate::clock::WallTime;

/// A chain whose leaf could be read.
#[derive(Clone, Debug)]
pub struct Certificate {
    chain: Vec<CertificateDer<'static>>,
    common_name: Option<String>,
    not_before: WallTime,
    not_after: WallTime,
    /// The leaf's SubjectPublicKeyInfo, and the key in it as signatures are verified with it.
    spki: Vec<u8>,
    public_key: Vec<u8>,
    algorithm: Option<SignatureAlgorithm>,
}

impl Certificate {
    /// Reads the certificates in `path`, leaf first. Other blocks, such as a key, are skipped.
    ///
    /// # Errors
    /// `Refused`, naming the file.
    pub fn read(path: &Path) -> Result<Self, FetchFailure> {
        let pem = file::read("the certificate", path, file::SMALL)?;
        Self::parse(&pem).map_err(|why| {
            let message = format!("the certificate {} cannot be used: {why}", path.display());
            FetchFailure::new(FailureClass::Refused, message)
        })
    }

    pub(super) fn parse(pem: &[u8]) -> Result<Self, String> {
        markers::check(pem)?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|_| "it holds a PEM block that is not base64")?;
        let leaf = chain
            .first()
            .ok_or("it holds no PEM block BEGIN CERTIFICATE")?;
        let leaf = x509_cert::Certificate::from_der(leaf)
            .map_err(|e| format!("its first certificate is malformed ({e})"))?;
        let leaf = leaf.tbs_certificate();
        let spki = leaf.subject_public_key_info();
        Ok(Self {
            common_name: leaf
                .subject()
                .common_name()
                .ok()
                .flatten()
                .map(|name| name.value().into_owned()),
            not_before: leaf.validity().not_before.to_date_time().into(),
            not_after: leaf.validity().not_after.to_date_time().into(),
            public_key: spki.subject_public_key.raw_bytes().to_vec(),
            algorithm: match spki.algorithm.oid.to_string().as_str() {
                "1.2.840.10045.2.1" => Some(SignatureAlgorithm::ECDSA),
                "1.2.840.113549.1.1.1" => Some(SignatureAlgorithm::RSA),
                _ => None,
            },
            spki: spki
                .to_der()
                .map_err(|e| format!("its public key is malformed ({e})"))?,
            chain,
        })
    }

    /// All certificates of the file, leaf first; never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The subject's common name.
    pub fn common_name(&self) -> Option<&str> {
        self.common_name.as_deref()
    }

    /// From when the leaf is valid.
    pub fn not_before(&self) -> WallTime {
        self.not_before
    }

    /// Until when the leaf is valid.
    pub fn not_after(&self) -> WallTime {
        self.not_after
    }

    /// Whether `key` can be this certificate's, as far as that costs no signature: false only
    /// where it certainly isn't. A token's key is known by its algorithm alone.
    pub fn may_belong_to(&self, key: &dyn SigningKey) -> bool {
        match key.public_key() {
            Some(public) => public.as_ref() == self.spki,
            None => self.algorithm == Some(key.algorithm()),
        }
    }

    /// `key` as this certificate's: each of its signatures is verified before anybody sees it.
    pub fn prove(&self, key: Arc<dyn SigningKey>) -> Arc<dyn SigningKey> {
        key::prove(key, &self.public_key)
    }

    /// Makes one signature with `key`, and verifies it. For `check`: a fetch makes the same proof
    /// in its handshake.
    ///
    /// # Errors
    /// `Refused` where the key is another certificate's or of a kind that TLS can't use; what the
    /// key's own failure says where it doesn't sign.
    pub fn self_test(&self, key: &Arc<dyn SigningKey>) -> Result<(), FetchFailure> {
        const MESSAGE: &[u8] = b"edgerepl check: does this key belong to this certificate?";
        let algorithms = crypto::ring::default_provider().signature_verification_algorithms;
        let signer = self
            .prove(Arc::clone(key))
            .choose_scheme(&algorithms.supported_schemes())
            .ok_or_else(|| {
                let why = "the private key is of a kind that TLS has no signature scheme for";
                FetchFailure::new(FailureClass::Refused, why)
            })?;
        let signed = signer.sign(MESSAGE);
        signed.map(drop).map_err(|error| key::why_unsigned(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::PrivateKey;

    const LEAF: &str = include_str!("testdata/ec.crt");
    const OTHER: &str = include_str!("testdata/rsa.crt");
    const KEY: &str = include_str!("testdata/ec.pkcs8.pem");

    fn key(name: &str) -> std::sync::Arc<dyn SigningKey> {
        let dir = PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/credentials/testdata"
        ));
        let key = PrivateKey::Pem(dir.join(name));
        key::open(
            &key,
            "/nonexistent".as_ref(),
            &(std::sync::Arc::new(|_| ()) as _),
        )
        .expect(name)
    }

    #[test]
    fn reads_a_chain_with_its_leaf_first() {
        for pem in [
            format!("{LEAF}{OTHER}"),
            format!("{KEY}{LEAF}{OTHER}"),
            format!("{LEAF}{OTHER}").replace('\n', "\r\n"),
            format!("Bag Attributes\n  friendlyName: x\n{LEAF}\n\n{OTHER}"),
        ] {
            let certificate = Certificate::parse(pem.as_bytes()).expect("valid");
            assert_eq!(certificate.chain().len(), 2);
            assert_eq!(certificate.common_name(), Some("thing-1"));
            assert!(certificate.not_before() < certificate.not_after());
            assert!(certificate.not_after() > WallTime::of_build());
        }
    }

    #[test]
    fn names_what_is_wrong_with_the_file() {
        let cut = &LEAF[..LEAF.len() / 2];
        let garbled = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let not_base64 = "-----BEGIN CERTIFICATE-----\n****\n-----END CERTIFICATE-----\n";
        for (pem, why) in [
            ("", "no PEM block"),
            (KEY, "no PEM block"),
            ("\x30\x03abc", "no PEM block"),
            (cut, "cut short"),
            (
                &format!("{}{OTHER}", LEAF.trim_end()),
                "does not stand alone",
            ),
            (&format!("\u{feff}{LEAF}"), "byte order mark"),
            (not_base64, "not base64"),
            (garbled, "malformed"),
        ] {
            let error = Certificate::parse(pem.as_bytes()).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn knows_its_own_key() {
        let certificate = Certificate::parse(LEAF.as_bytes()).expect("valid");
        let (own, other) = (key("ec.pkcs8.pem"), key("ec.other.pem"));
        assert!(certificate.may_belong_to(&*own));
        assert!(!certificate.may_belong_to(&*other));
        assert_eq!(certificate.self_test(&own), Ok(()));
        let failure = certificate.self_test(&other).expect_err("another's key");
        assert_eq!(failure.class, FailureClass::Refused);
        assert!(certificate.self_test(&key("rsa.pkcs8.pem")).is_err());
    }
}
