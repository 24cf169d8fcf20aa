//! The TLS connection: the servers it trusts, the device's identity, and what its errors mean.
//!
//! Owns the rustls configuration. The server is always verified, against the roots of the
//! configured file only, at a time that is never before the caller's lower bound. There is no
//! switch to turn that off. Never resumes a session: each fetch proves that the key works and that
//! the certificate is still accepted.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::client::{ClientConfig, ResolvesClientCert, Resumption};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::time_provider::TimeProvider;
use rustls::{AlertDescription, CertificateError, RootCertStore, SignatureScheme};

use super::certificate::Certificate;
use super::wire::FetchRequest;
use super::witness::Witness;
use super::{FailureClass, FetchFailure, file, key, markers};
use crate::clock::WallTime;

/// The longest bundle of roots, in bytes: four times that of a desktop system.
const MAX_BUNDLE: usize = 1024 * 1024;

/// A configuration for connections that present the device's certificate.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) device: Arc<Device>,
    pub(super) witness: Arc<Witness>,
}

impl Tls {
    pub(super) fn new(
        request: &FetchRequest,
        roots: RootCertStore,
        certificate: &Certificate,
        key: Arc<dyn SigningKey>,
    ) -> Result<Self, FetchFailure> {
        // `CertifiedKey::new` also takes certificates of X.509 version 1, which IoT devices have.
        let device = Arc::new(Device {
            certified: Arc::new(CertifiedKey::new(certificate.chain().to_vec(), key)),
            no_common_scheme: AtomicBool::new(false),
        });
        let roots = Arc::new(roots);
        let witness = Arc::new(Witness::load(
            request.witness.clone(),
            Arc::clone(&roots),
            server_name(&request.provider.endpoint.host)?,
        ));
        let clock = Arc::new(NotBefore(witness.time()));
        let mut config =
            ClientConfig::builder_with_details(Arc::new(ring::default_provider()), clock)
                .with_safe_default_protocol_versions()
                .map_err(|error| explain(&error, request))?
                .with_root_certificates(roots)
                .with_client_cert_resolver(Arc::clone(&device) as Arc<dyn ResolvesClientCert>);
        config.resumption = Resumption::disabled();
        Ok(Self {
            config: Arc::new(config),
            device,
            witness,
        })
    }

    /// The time that certificates are judged at.
    pub(super) fn believed(&self) -> WallTime {
        believed(self.witness.time())
    }
}

/// The roots in a bundle of PEM certificates. One that can't be used does not spoil the others; a
/// file of which a part can't even be read is refused, because the contents of that part are unknown.
///
/// # Errors
/// `Refused` where the file is no sound PEM, or holds no root that can be used.
pub fn read_roots(path: &Path) -> Result<RootCertStore, FetchFailure> {
    let pem = file::read("the CA file", path, MAX_BUNDLE)?;
    let refused = |why: String| {
        let message = format!("the CA file {} {why}", path.display());
        FetchFailure::new(FailureClass::Refused, message)
    };
    markers::check(&pem).map_err(|why| refused(format!("is malformed, {why}")))?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        let der = certificate.map_err(|_| {
            let number = index + 1;
            refused(format!(
                "is malformed: its certificate {number} is not base64"
            ))
        })?;
        if let Err(error) = roots.add(der) {
            log::warn!(
                "certificate {} of {} is skipped: {error}",
                index + 1,
                path.display()
            );
        }
    }
    if roots.is_empty() {
        return Err(refused("holds no usable certificate".to_owned()));
    }
    Ok(roots)
}

/// The name that the server has to show a certificate for: the host of a URI.
pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, FetchFailure> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let name = ServerName::try_from(bare.unwrap_or(host)).map(|name| name.to_owned());
    name.map_err(|_| {
        let message = format!("{host:?} is not a valid name for a server's certificate");
        FetchFailure::new(FailureClass::Refused, message)
    })
}

/// The device's side of the handshake.
#[derive(Debug)]
pub(super) struct Device {
    certified: Arc<CertifiedKey>,
    no_common_scheme: AtomicBool,
}

impl Device {
    /// What went wrong where the device could not sign in any way that the server takes. rustls
    /// then sends no certificate at all, and what the server makes of that names another cause.
    pub(super) fn mismatch(&self) -> Option<FetchFailure> {
        self.no_common_scheme.load(Ordering::Relaxed).then(|| {
            let message = format!(
                "the server accepts no signature scheme of the device's {:?} key",
                self.certified.key.algorithm()
            );
            FetchFailure::new(FailureClass::Refused, message)
        })
    }
}

impl ResolvesClientCert for Device {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        if self.certified.key.choose_scheme(schemes).is_none() {
            log::warn!("the server accepts only the signature schemes {schemes:?}");
            self.no_common_scheme.store(true, Ordering::Relaxed);
            return None;
        }
        Some(Arc::clone(&self.certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Never a time before this one.
#[derive(Debug)]
struct NotBefore(WallTime);

impl TimeProvider for NotBefore {
    fn current_time(&self) -> Option<UnixTime> {
        let time = u64::try_from(believed(self.0).unix()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_secs(time)))
    }
}

/// The system's clock, unless it shows a time before the one that is vouched for.
fn believed(not_before: WallTime) -> WallTime {
    WallTime::now().max(not_before)
}

/// Says in a sentence what rustls found.
pub(super) fn explain(error: &rustls::Error, request: &FetchRequest) -> FetchFailure {
    if let Some(failure) = key::failure_in(error) {
        return failure;
    }
    match error {
        rustls::Error::InvalidCertificate(problem) => explain_server(problem, request),
        rustls::Error::AlertReceived(alert) => explain_alert(*alert, request),
        other => {
            let message = format!("TLS with {} failed: {other}", request.provider.endpoint);
            FetchFailure::new(FailureClass::Transient, message)
        }
    }
}

/// The server's certificate does not pass. The cause may be a network that answers in the server's
/// place, which ends by itself: hence never `Refused`.
fn explain_server(problem: &CertificateError, request: &FetchRequest) -> FetchFailure {
    let host = &request.provider.endpoint.host;
    let at =
        |time: &UnixTime| WallTime::from_unix(i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
    let (class, message) = match problem {
        CertificateError::NotValidYetContext { time, not_before } => (
            FailureClass::ClockNotSet,
            format!(
                "the certificate of {host} is valid from {}, but the device's clock shows {}: the \
                 clock is not set",
                at(not_before),
                at(time)
            ),
        ),
        CertificateError::NotValidYet => (
            FailureClass::ClockNotSet,
            format!("the certificate of {host} is not valid yet: the device's clock is not set"),
        ),
        CertificateError::ExpiredContext { time, not_after } => (
            FailureClass::Transient,
            format!(
                "the certificate of {host} was valid until {}, but the device's clock shows {}: \
                 the clock may be ahead",
                at(not_after),
                at(time)
            ),
        ),
        CertificateError::UnknownIssuer => (
            FailureClass::Transient,
            format!(
                "the certificate of {host} was not issued by any root in {}: the file lacks the \
                 server's root, or another server answers in its place",
                request.provider.ca_file.display()
            ),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            FailureClass::Transient,
            format!(
                "the certificate of {} is not valid for the name {host}: credentials.endpoint is \
                 wrong, or another server answers in its place",
                request.provider.endpoint
            ),
        ),
        other => (
            FailureClass::Transient,
            format!("the certificate of {host} is not accepted: {other}"),
        ),
    };
    FetchFailure::new(class, message)
}

fn explain_alert(alert: AlertDescription, request: &FetchRequest) -> FetchFailure {
    let certificate = request.identity.certificate.display();
    let likely = match alert {
        AlertDescription::UnknownCA
        | AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::HandshakeFailure => format!(
            "register and activate the certificate {certificate} in the account and region of \
             credentials.endpoint"
        ),
        AlertDescription::DecryptError => {
            format!("the private key does not belong to the certificate {certificate}")
        }
        AlertDescription::CertificateExpired => {
            format!("the certificate {certificate} has expired, by the server's clock")
        }
        AlertDescription::CertificateRevoked => {
            format!("the certificate {certificate} is revoked or deactivated")
        }
        AlertDescription::UnsupportedCertificate => {
            format!("the server does not accept the type of the certificate {certificate}")
        }
        AlertDescription::CertificateRequired => {
            "the server requires a certificate and received none".to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "the server does not know this name: correct credentials.endpoint".to_owned()
        }
        other => {
            let message = format!("{} aborted TLS ({other:?})", request.provider.endpoint);
            return FetchFailure::new(FailureClass::Transient, message);
        }
    };
    let message = format!(
        "{} rejected the device in the TLS handshake ({alert:?}): {likely}",
        request.provider.endpoint
    );
    FetchFailure::new(FailureClass::Refused, message)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn reads_the_roots_that_it_can() {
        let dir = std::env::temp_dir().join(format!("edgerepl-roots-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let file = |name: &str, content: &str| {
            let path = dir.join(name);
            std::fs::write(&path, content).expect("written");
            path
        };
        let (ec, rsa) = (
            include_str!("testdata/ec.crt"),
            include_str!("testdata/rsa.crt"),
        );
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

        let shipped = include_str!("../../dist/aws-iot-ca.pem");
        let number = shipped.matches("BEGIN").count();
        assert_eq!(
            read_roots(&file("shipped", shipped)).expect("roots").len(),
            number
        );
        let bundle = file("bundle", &format!("# a comment\n{ec}{broken}{rsa}"));
        assert_eq!(read_roots(&bundle).expect("two roots").len(), 2);
        for (path, why) in [
            (file("broken", broken), "no usable certificate"),
            (file("text", "no PEM at all"), "no usable certificate"),
            (
                file("joined", &format!("{}{rsa}", ec.trim_end())),
                "(of PEM block 1): a BEGIN or END marker does not stand alone",
            ),
            (
                file("mark", &format!("\u{feff}{ec}{rsa}")),
                "byte order mark",
            ),
            (file("cut", &format!("{rsa}{}", &ec[..60])), "is cut short"),
            (
                file(
                    "text inside",
                    &format!("{rsa}{}", broken.replace("AAAA", "A**A")),
                ),
                "certificate 2 is not base64",
            ),
            (PathBuf::from("/nonexistent"), "No such file"),
        ] {
            let failure = read_roots(&path).expect_err(why);
            assert_eq!(failure.class, FailureClass::Refused);
            assert!(failure.message.contains(why), "{}", failure.message);
        }
        std::fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn never_judges_before_the_time_that_is_vouched_for() {
        let past = WallTime::from_unix(1);
        let future = WallTime::now() + Duration::from_secs(1_000_000);
        assert!(believed(past) > past);
        assert_eq!(believed(future), future);
    }
}
