//! The public half of a key in a token, and new keys there: what a certificate request needs.
//!
//! Owns the objects that a fetch never asks for: cryptoauthlib has the chip compute a public key
//! each time, and with it every attribute of it. Never makes a key beside one of the same name.

use std::path::Path;

use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, ObjectClass, ObjectHandle};
use rustls::SignatureAlgorithm;
use x509_cert::der::asn1::{Any, BitString, UintRef};
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{self, Encode, Tag};
use x509_cert::spki::{AlgorithmIdentifierOwned, SubjectPublicKeyInfoOwned};

use super::{Access, Fault, OpenKey, Wanted, is_named, look_for, open_session, said};
use crate::config::Pkcs11Uri;
use crate::credentials::key::NewKey;
use crate::credentials::{FailureClass, FetchFailure};

const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// prime256v1, DER, as a token is told the curve.
const P256_PARAMETERS: [u8; 10] = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// A point on P-256, not compressed.
const POINT: usize = 65;

/// A new key pair of the name in `uri`, in the token. It can't leave it.
pub(in crate::credentials::key) fn generate(
    uri: &Pkcs11Uri,
    refused_pin: &Path,
    kind: NewKey,
) -> Result<(), FetchFailure> {
    make(uri, refused_pin, kind).map_err(|fault| fault.failure)
}

fn make(uri: &Pkcs11Uri, refused_pin: &Path, kind: NewKey) -> Result<(), Fault> {
    let (session, token, _module) = open_session(uri, refused_pin, Access::Write)?;
    if !look_for(&session, &token, uri, ObjectClass::PRIVATE_KEY)?.is_empty() {
        let message = format!(
            "the token {:?} already has a private key {}, and edgerepl never replaces a key: omit \
             --generate to use it",
            token.label(),
            Wanted(uri)
        );
        return Err(Fault::lasting(FailureClass::Refused, message));
    }
    let (mechanism, parameters) = match kind {
        NewKey::P256 => (
            Mechanism::EccKeyPairGen,
            vec![Attribute::EcParams(P256_PARAMETERS.to_vec())],
        ),
        NewKey::Rsa2048 => (
            Mechanism::RsaPkcsKeyPairGen,
            vec![
                Attribute::ModulusBits(2048.into()),
                Attribute::PublicExponent(vec![1, 0, 1]),
            ],
        ),
    };
    let mut both = vec![Attribute::Token(true)];
    both.extend(is_named(uri));
    let public = [&both[..], &[Attribute::Verify(true)], &parameters].concat();
    let private = [
        &both[..],
        &[
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ],
    ]
    .concat();
    let made = match session.generate_key_pair(&mechanism, &public, &private) {
        // cryptoauthlib wants to be told the curve where the standard says that it must not be
        // told: with the private half.
        Err(Error::Pkcs11(RvError::TemplateInconsistent, _)) => {
            let private = [&private[..], &parameters].concat();
            session.generate_key_pair(&mechanism, &public, &private)
        }
        made => made,
    };
    made.map(drop).map_err(said(&token, "generate a key"))
}

impl OpenKey {
    /// The SubjectPublicKeyInfo of the key's public half, DER.
    pub(super) fn public_key(&self, uri: &Pkcs11Uri) -> Result<Vec<u8>, Fault> {
        let objects = look_for(&self.session, &self.token, uri, ObjectClass::PUBLIC_KEY)?;
        let mut keys = objects
            .into_iter()
            .map(|object| self.read_public_key(uri, object))
            .collect::<Result<Vec<_>, _>>()?;
        // cryptoauthlib shows one for each line about a slot.
        keys.dedup();
        match (keys.pop(), keys.is_empty()) {
            (Some(key), true) => Ok(key),
            (key, _) => {
                let message = format!(
                    "the token {:?} has {} public keys {}, but a certificate request needs the one \
                     of the private key: give both keys the same label or id",
                    self.token.label(),
                    key.map_or("no".to_owned(), |_| (keys.len() + 1).to_string()),
                    Wanted(uri)
                );
                Err(Fault::lasting(FailureClass::Refused, message))
            }
        }
    }

    fn read_public_key(&self, uri: &Pkcs11Uri, object: ObjectHandle) -> Result<Vec<u8>, Fault> {
        let wanted: &[AttributeType] = match self.algorithm {
            SignatureAlgorithm::ECDSA => &[AttributeType::EcPoint],
            _ => &[AttributeType::Modulus, AttributeType::PublicExponent],
        };
        let attributes = self.session.get_attributes(object, wanted);
        let attributes = attributes.map_err(|e| Fault::of(&"the token hides the public key", e))?;
        let info = match attributes.as_slice() {
            [Attribute::EcPoint(point)] => of_point(point),
            [
                Attribute::Modulus(modulus),
                Attribute::PublicExponent(exponent),
            ] => of_rsa(modulus, exponent).ok(),
            _ => None,
        };
        info.ok_or_else(|| {
            let message = format!(
                "the token's public key {} has an unknown format",
                Wanted(uri)
            );
            Fault::lasting(FailureClass::Key, message)
        })
    }
}

/// From a point as it is, or in the OCTET STRING that PKCS#11 asks for.
fn of_point(point: &[u8]) -> Option<Vec<u8>> {
    let point = match point {
        [0x04, length, bare @ ..] if usize::from(*length) == POINT && bare.len() == POINT => bare,
        bare => bare,
    };
    if point.len() != POINT || point[0] != 0x04 {
        return None;
    }
    info(EC_PUBLIC_KEY, Any::encode_from(&P256).ok()?, point).ok()
}

fn of_rsa(modulus: &[u8], exponent: &[u8]) -> der::Result<Vec<u8>> {
    let mut numbers = UintRef::new(modulus)?.to_der()?;
    numbers.extend(UintRef::new(exponent)?.to_der()?);
    let key = Any::new(Tag::Sequence, numbers)?.to_der()?;
    info(RSA_ENCRYPTION, Any::null(), &key)
}

fn info(algorithm: ObjectIdentifier, parameters: Any, key: &[u8]) -> der::Result<Vec<u8>> {
    let info = SubjectPublicKeyInfoOwned {
        algorithm: AlgorithmIdentifierOwned {
            oid: algorithm,
            parameters: Some(parameters),
        },
        subject_public_key: BitString::from_bytes(key)?,
    };
    info.to_der()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_point_with_and_without_its_wrapper() {
        let bare: Vec<u8> = [0x04].into_iter().chain([7; 64]).collect();
        let wrapped = [&[0x04, 65], bare.as_slice()].concat();
        let info = of_point(&bare).expect("a point");
        assert_eq!(of_point(&wrapped), Some(info.clone()));
        assert_eq!(info.len(), 91);
        assert!(info.ends_with(&bare));
        for bad in [&bare[1..], &wrapped[..66], &[0x02; 65], &[]] {
            assert_eq!(of_point(bad), None);
        }
    }

    #[test]
    fn keeps_a_modulus_positive() {
        let info = of_rsa(&[0x80; 256], &[1, 0, 1]).expect("a key");
        assert_eq!(info.len(), 294);
    }
}
