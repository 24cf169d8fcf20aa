//! The lab's certificate authorities: one chain for the provider's server, one CA for devices. It
//! owns keys and issues certificates; who may use which is the registry's business.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SigningKey, date_time_ymd,
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use time::OffsetDateTime;

use crate::{
    error::{Error, Result},
    sessions::random,
};

/// The kind of a device's private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on P-256, the only kind that an ATECC608 holds.
    EcdsaP256,
    /// RSA with 2048 bits, as in many TPMs.
    Rsa2048,
}

impl KeyKind {
    /// As the `lab` command spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ecdsa-p256",
            Self::Rsa2048 => "rsa-2048",
        }
    }
}

impl std::str::FromStr for KeyKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        [Self::EcdsaP256, Self::Rsa2048]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                Error::new(format!(
                    "{name:?} is no kind of key: give ecdsa-p256 or rsa-2048"
                ))
            })
    }
}

/// What the provider's server shows, from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerCertificate {
    /// Valid from 2020 to 2049, so that a client's clock may be years off, but not at 1970.
    #[default]
    Good,
    /// Since a month and for a year, as those of AWS are.
    Usual,
    /// Since a moment ago: later than any program that is tested was built.
    Latest,
    /// For another host.
    WrongName,
    /// From a root that is not in [`Lab::ca_file`](crate::Lab::ca_file).
    WrongCa,
    /// Ended in 2021.
    Expired,
    /// Begins in a year.
    NotYetValid,
}

/// A certificate chain with its key, leaf first.
#[derive(Debug)]
pub(crate) struct ServerIdentity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

impl ServerIdentity {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.serialize_der()).into()
    }
}

type Authority = CertifiedIssuer<'static, KeyPair>;

pub(crate) struct Pki {
    server_name: String,
    server_root: Authority,
    server_intermediate: Authority,
    /// In the bundle too, and signs nothing: a client has to try more than one root.
    other_root: Authority,
    stranger_root: Authority,
    device_ca: Authority,
}

impl Pki {
    pub(crate) fn new(server_name: &str) -> Result<Self> {
        // Two labs' authorities are strangers to each other by name too.
        let lab: String = random::<4>()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let named = |role: &str| format!("edgerepl lab {lab} {role}");
        let server_root = root(&named("server root"))?;
        let intermediate_params = authority(&named("server intermediate"));
        let server_intermediate =
            CertifiedIssuer::signed_by(intermediate_params, generate()?, &server_root)
                .map_err(failed)?;
        Ok(Self {
            server_name: server_name.to_owned(),
            server_root,
            server_intermediate,
            other_root: root(&named("other root"))?,
            stranger_root: root(&named("stranger root"))?,
            device_ca: root(&named("device CA"))?,
        })
    }

    /// What a device trusts: PEM, the root that matters last.
    pub(crate) fn bundle(&self) -> String {
        format!("{}{}", self.other_root.pem(), self.server_root.pem())
    }

    pub(crate) fn device_roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots
            .add(self.device_ca.der().clone())
            .map_err(Error::doing("the lab's device CA"))?;
        Ok(roots)
    }

    pub(crate) fn server(&self, which: ServerCertificate) -> Result<ServerIdentity> {
        let name = match which {
            ServerCertificate::WrongName => "other.invalid",
            _ => &self.server_name,
        };
        let mut params = CertificateParams::new([name.to_owned()]).map_err(failed)?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        (params.not_before, params.not_after) = match which {
            ServerCertificate::Expired => (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1)),
            ServerCertificate::Usual => (
                OffsetDateTime::now_utc() - time::Duration::days(30),
                OffsetDateTime::now_utc() + time::Duration::days(365),
            ),
            ServerCertificate::Latest => (
                OffsetDateTime::now_utc() - time::Duration::seconds(1),
                date_time_ymd(2049, 1, 1),
            ),
            ServerCertificate::NotYetValid => (
                // The same for all that are made in a day: each handshake shows another one.
                (OffsetDateTime::now_utc() + time::Duration::days(365))
                    .replace_time(time::Time::MIDNIGHT),
                date_time_ymd(2049, 1, 1),
            ),
            _ => (date_time_ymd(2020, 1, 1), date_time_ymd(2049, 1, 1)),
        };
        let issuer = match which {
            ServerCertificate::WrongCa => &self.stranger_root,
            _ => &self.server_intermediate,
        };
        let key = generate()?;
        let leaf = params.signed_by(&key, issuer).map_err(failed)?;
        Ok(ServerIdentity {
            chain: vec![leaf.into(), issuer.der().clone()],
            key,
        })
    }

    /// Such a chain as PEM, leaf first.
    pub(crate) fn server_pem(&self, which: ServerCertificate) -> Result<String> {
        let chain = self.server(which)?.chain;
        let pem = |der: &CertificateDer<'_>| {
            let body = STANDARD.encode(der);
            let lines: Vec<_> = body
                .as_bytes()
                .chunks(64)
                .map(String::from_utf8_lossy)
                .collect();
            let lines = lines.join("\n");
            format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
        };
        Ok(chain.iter().map(pem).collect())
    }

    /// Issues a device's certificate from its PKCS#10 request, as the cloud does at provisioning.
    pub(crate) fn sign_device(&self, request: &str) -> Result<DeviceCertificate> {
        let mut request = CertificateSigningRequestParams::from_pem(request)
            .map_err(Error::doing("the device's certificate request"))?;
        request.params.not_before = date_time_ymd(2020, 1, 1);
        request.params.not_after = date_time_ymd(2049, 1, 1);
        request.params.use_authority_key_identifier_extension = true;
        request.params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        request.params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = request.signed_by(&self.device_ca).map_err(failed)?;
        Ok(DeviceCertificate {
            pem: certificate.pem(),
            der: certificate.into(),
        })
    }
}

pub(crate) struct DeviceCertificate {
    pub(crate) pem: String,
    pub(crate) der: CertificateDer<'static>,
}

/// A PKCS#10 request for a device, signed by `key` wherever that key lives.
pub(crate) fn device_request(common_name: &str, key: &impl SigningKey) -> Result<String> {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let request = params.serialize_request(key).map_err(failed)?;
    request.pem().map_err(failed)
}

fn root(name: &str) -> Result<Authority> {
    CertifiedIssuer::self_signed(authority(name), generate()?).map_err(failed)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 1, 1);
    params
}

fn generate() -> Result<KeyPair> {
    KeyPair::generate().map_err(failed)
}

fn failed(cause: rcgen::Error) -> Error {
    Error::new(format!(
        "a certificate of the lab could not be made: {cause}"
    ))
}
