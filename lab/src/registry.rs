//! Which certificates AWS IoT knows, and to which thing each is attached. A certificate of the
//! right CA that is not registered here is a stranger.

use std::collections::HashMap;

use rustls::pki_types::CertificateDer;

use crate::sync::Shared;

#[derive(Default)]
pub(crate) struct Registry(Shared<HashMap<Vec<u8>, Registration>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    Active { thing_name: String },
    Revoked,
}

impl Registry {
    pub(crate) fn register(&self, certificate: &CertificateDer<'_>, thing_name: &str) {
        let active = Registration::Active {
            thing_name: thing_name.to_owned(),
        };
        self.0.lock().insert(certificate.to_vec(), active);
    }

    pub(crate) fn revoke(&self, certificate: &CertificateDer<'_>) {
        self.0
            .lock()
            .insert(certificate.to_vec(), Registration::Revoked);
    }

    pub(crate) fn forget(&self, certificate: &CertificateDer<'_>) {
        self.0.lock().remove(certificate.as_ref());
    }

    pub(crate) fn find(&self, certificate: &CertificateDer<'_>) -> Option<Registration> {
        self.0.lock().get(certificate.as_ref()).cloned()
    }
}
