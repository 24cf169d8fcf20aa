//! A verified certificate of the server, kept as a lower bound of the time.
//!
//! Owns its file, for devices that boot in 1970. A CA has signed when the certificate begins, so
//! that no certificate of the server is checked at an earlier time. Only that signature is trusted:
//! the file is verified at each reading, against the roots and the host of this fetch. Never uses a
//! `Date`, nor what an earlier version wrote of one.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use log::debug;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_cert::der::pem::{LineEnding, encode_string};

use super::certificate::Certificate;
use super::file;
use crate::clock::WallTime;
use crate::config::RuntimeDirectory;
use crate::system::file::replace;

/// Where it is kept, of a boot or longer.
pub fn path(runtime: &RuntimeDirectory) -> PathBuf {
    runtime.state_file("server.pem")
}

/// What is kept, and by whom it has to be signed to count.
#[derive(Clone, Debug)]
pub(super) struct Witness {
    file: PathBuf,
    roots: Arc<RootCertStore>,
    host: ServerName<'static>,
    time: WallTime,
}

impl Witness {
    /// The one in `file`, where that holds a chain which these roots sign for this host.
    pub(super) fn load(
        file: PathBuf,
        roots: Arc<RootCertStore>,
        host: ServerName<'static>,
    ) -> Self {
        let mut witness = Self {
            file,
            roots,
            host,
            time: WallTime::of_build(),
        };
        let kept = file::read("the witness", &witness.file, file::SMALL);
        let begins = kept.ok().and_then(|pem| witness.begins(&pem));
        witness.time = witness.time.max(begins.unwrap_or_default());
        witness
    }

    /// The time that has certainly passed: when this program was built, or the certificate began.
    pub(super) fn time(&self) -> WallTime {
        self.time
    }

    /// Keeps a chain that passed, if it begins later.
    pub(super) fn hear(&self, chain: &[CertificateDer<'_>]) {
        let pem: Option<String> = chain
            .iter()
            .map(|der| encode_string("CERTIFICATE", LineEnding::LF, der).ok())
            .collect();
        // What can't be read back would be written anew at each fetch, and flash is spared.
        let pem = pem.filter(|pem| pem.len() <= file::SMALL);
        let Some(pem) = pem.filter(|pem| self.begins(pem.as_bytes()) > Some(self.time)) else {
            return;
        };
        if let Err(e) = self.keep(&pem) {
            debug!("{} can't be written: {e}", self.file.display());
        }
    }

    /// When the leaf of a chain begins, if the chain passed at that time.
    fn begins(&self, pem: &[u8]) -> Option<WallTime> {
        let certificate = Certificate::parse(pem).ok()?;
        let (leaf, intermediates) = certificate.chain().split_first()?;
        let begins = certificate.not_before();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(begins.unix().try_into().ok()?));
        let provider = Arc::new(ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), provider)
            .build()
            .ok()?
            .verify_server_cert(leaf, intermediates, &self.host, &[], at)
            .ok()?;
        Some(begins)
    }

    /// Torn or missing, it costs nothing but the time that it vouches for.
    fn keep(&self, pem: &str) -> io::Result<()> {
        // A command of root's may do this for a daemon of another user's, who has to read it.
        replace(&self.file, 0o644, pem.as_bytes())?;
        // Where an earlier version kept a `Date`, which anybody's clock could spoil.
        let _ = fs::remove_file(self.file.with_file_name("last-good-time"));
        Ok(())
    }
}
