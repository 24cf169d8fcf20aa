//! `edgerepl csr`: a certificate request (PKCS#10, RFC 2986), signed by the device's own key.
//!
//! Owns the request's format and its subject. The key never leaves the token; with `--generate` the
//! token generates it first. Never prints a request whose signature was not verified.

use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use rustls::sign::SigningKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_cert::der::asn1::{Any, BitString};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::pem::LineEnding;
use x509_cert::der::{self, Decode, Encode, EncodePem};
use x509_cert::name::Name;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::output;
use super::patience::patiently;
use crate::config::{Identity, RuntimeDirectory};
use crate::credentials::certificate::Certificate;
use crate::credentials::fetch;
use crate::credentials::key::{self, NewKey};
use crate::credentials::{FailureClass, FetchFailure};

const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const RSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// Prints the request. `subject` is a distinguished name (RFC 4514); the default is the thing's
/// name as CN.
pub(crate) fn csr(
    identity: &Identity,
    subject: Option<&str>,
    generate: Option<NewKey>,
    runtime: &RuntimeDirectory,
) -> ExitCode {
    let refused_pin = runtime.refused_pin();
    let private_key = identity.private_key.clone();
    let made = subject_of(identity, subject).and_then(|subject| {
        patiently(move |on_stage| {
            if let Some(kind) = generate {
                key::generate(&private_key, kind, &refused_pin, on_stage)?;
            }
            let (key, public) = key::open_with_public_key(&private_key, &refused_pin, on_stage)?;
            request(subject, &public, key)
        })
    });
    match made {
        Ok(pem) => output::answer(pem, ExitCode::SUCCESS),
        Err(failure) => {
            log::error!("can't make the certificate request: {}", failure.message);
            ExitCode::FAILURE
        }
    }
}

fn subject_of(identity: &Identity, given: Option<&str>) -> Result<Name, FetchFailure> {
    let (text, from) = match given {
        Some(given) => (given.to_owned(), "--subject"),
        None => (format!("CN={}", thing_name(identity)?), "the thing's name"),
    };
    let name = Name::from_str(&text).ok().filter(|name| !name.is_empty());
    name.ok_or_else(|| {
        let message =
            format!("{from} {text:?} is not a distinguished name: write CN=name,O=organization");
        FetchFailure::new(FailureClass::Refused, message)
    })
}

/// From the configuration, or from an earlier certificate.
fn thing_name(identity: &Identity) -> Result<String, FetchFailure> {
    if let Some(name) = &identity.thing_name {
        return Ok(name.clone());
    }
    let earlier = Certificate::read(&identity.certificate);
    earlier
        .and_then(|certificate| fetch::thing_name(identity, &certificate))
        .map_err(|_| {
            let message = "the device's name is not known: pass --subject CN=name, or set \
                           [identity] thing_name";
            FetchFailure::new(FailureClass::Refused, message)
        })
}

/// The request as PEM.
fn request(subject: Name, public: &[u8], key: Arc<dyn SigningKey>) -> Result<String, FetchFailure> {
    let broken = |error: der::Error| {
        let message = format!("the request can't be written: {error}");
        FetchFailure::new(FailureClass::Key, message)
    };
    let (scheme, algorithm) = match key.algorithm() {
        SignatureAlgorithm::ECDSA => (
            SignatureScheme::ECDSA_NISTP256_SHA256,
            AlgorithmIdentifierOwned {
                oid: ECDSA_WITH_SHA256,
                parameters: None,
            },
        ),
        _ => (
            SignatureScheme::RSA_PKCS1_SHA256,
            AlgorithmIdentifierOwned {
                oid: RSA_WITH_SHA256,
                parameters: Some(Any::null()),
            },
        ),
    };
    let public = SubjectPublicKeyInfoOwned::from_der(public).map_err(broken)?;
    let proven = key::prove(key, public.subject_public_key.raw_bytes());
    let signer = proven.choose_scheme(&[scheme]).ok_or_else(|| {
        let message = "the key is neither P-256 nor RSA: AWS IoT accepts no other";
        FetchFailure::new(FailureClass::Refused, message)
    })?;
    let info = CertReqInfo {
        version: Version::V1,
        subject,
        public_key: public,
        attributes: Default::default(),
    };
    let signed = signer.sign(&info.to_der().map_err(broken)?);
    let signature = signed.map_err(|error| key::why_unsigned(&error))?;
    let request = CertReq {
        info,
        algorithm,
        signature: BitString::from_bytes(&signature).map_err(broken)?,
    };
    request.to_pem(LineEnding::LF).map_err(broken)
}
