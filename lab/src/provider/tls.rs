//! The provider's end of TLS: what it shows, what it asks of the client's key, and the two tests of
//! a client's certificate (its chain, and that exactly this one is registered).

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    version::{TLS12, TLS13},
};

use crate::{
    error::{Error, Result},
    pki::{Pki, ServerCertificate},
    registry::{Registration, Registry},
    sync::Shared,
};

/// Which TLS versions the server speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// 1.2 and 1.3, as AWS IoT Core's default policy.
    #[default]
    Both,
    /// 1.2 alone.
    Tls12,
    /// 1.3 alone.
    Tls13,
}

impl TlsVersions {
    fn list(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&TLS13, &TLS12],
            Self::Tls12 => vec![&TLS12],
            Self::Tls13 => vec![&TLS13],
        }
    }
}

/// Which signatures the server asks of the client's key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientSignatures {
    /// All that it can verify.
    #[default]
    Any,
    /// RSA with PKCS#1 v1.5 padding alone, which exists in TLS 1.2 only.
    RsaPkcs1,
}

/// What the client's key signed with, once the handshake is over.
#[derive(Clone, Default)]
pub(crate) struct Signature(Arc<Shared<Option<SignatureScheme>>>);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self.0.lock() {
            Some(scheme) => write!(f, "{scheme:?}"),
            None => f.write_str("none"),
        }
    }
}

pub(crate) struct Tls {
    pki: Arc<Pki>,
    registry: Arc<Registry>,
    chain: Arc<dyn ClientCertVerifier>,
}

impl Tls {
    pub(crate) fn new(pki: Arc<Pki>, registry: Arc<Registry>) -> Result<Self> {
        let roots = Arc::new(pki.device_roots()?);
        let provider = Arc::new(ring::default_provider());
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(Error::doing("the verifier of device certificates"))?;
        Ok(Self {
            pki,
            registry,
            chain,
        })
    }

    /// One configuration for one connection: nothing is resumed, and every order holds at once.
    pub(crate) fn server_config(
        &self,
        certificate: ServerCertificate,
        versions: TlsVersions,
        asked: ClientSignatures,
        signature: Signature,
    ) -> Result<Arc<ServerConfig>> {
        let identity = self.pki.server(certificate)?;
        let verifier = DeviceVerifier {
            chain: self.chain.clone(),
            registry: self.registry.clone(),
            asked,
            signature,
        };
        let failed = || Error::doing("the provider's TLS configuration");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&versions.list())
            .map_err(failed())?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(identity.chain.clone(), identity.key())
            .map_err(failed())?;
        Ok(Arc::new(config))
    }
}

struct DeviceVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    registry: Arc<Registry>,
    asked: ClientSignatures,
    signature: Signature,
}

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceVerifier").finish_non_exhaustive()
    }
}

impl ClientCertVerifier for DeviceVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> std::result::Result<ClientCertVerified, rustls::Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        match self.registry.find(end_entity) {
            Some(Registration::Active { .. }) => Ok(verified),
            Some(Registration::Revoked) => Err(CertificateError::Revoked.into()),
            None => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        *self.signature.0.lock() = Some(dss.scheme);
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        *self.signature.0.lock() = Some(dss.scheme);
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        match self.asked {
            ClientSignatures::Any => self.chain.supported_verify_schemes(),
            ClientSignatures::RsaPkcs1 => vec![SignatureScheme::RSA_PKCS1_SHA256],
        }
    }
}
