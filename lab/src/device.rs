//! A device as it leaves provisioning: a registered certificate and a private key, in a PEM file or
//! in a token. It owns the device's directory; the certificate authority and the registry are not
//! its.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::KeyPair;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};
use rustls::pki_types::CertificateDer;

use crate::{
    error::{Error, Result},
    faulty::FaultyToken,
    files::{copy_folder, make_directory, write_secret},
    i2c::I2cBus,
    pki::{KeyKind, Pki, device_request},
    secure_element::{self, ModuleFolder},
    token,
};

/// A provisioned device.
#[derive(Clone, Debug)]
pub struct Device {
    /// The name of its thing, which is also the certificate's subject CN.
    pub thing_name: String,
    /// Its certificate, PEM.
    pub certificate: PathBuf,
    /// `identity.private_key` for edgerepl: a path or a PKCS#11 URI.
    pub private_key: String,
    /// What a process that uses the key needs in its environment.
    pub env: Vec<(String, String)>,
    pub(crate) certificate_der: CertificateDer<'static>,
    /// Where the token lives, and where it is while it is pulled out.
    token: Option<(PathBuf, PathBuf)>,
}

impl Device {
    /// With its key in a PEM file.
    pub(crate) fn with_pem(
        pki: &Pki,
        directory: &Path,
        kind: KeyKind,
        thing_name: &str,
    ) -> Result<Self> {
        make_directory(directory)?;
        let private_key = directory.join("device.key");
        let key = KeyPair::from_pem(&new_pem_key(kind)?)
            .map_err(Error::doing("the device's new private key"))?;
        write_secret(&private_key, &key.serialize_pem())?;
        let private_key = private_key.display().to_string();
        Self::with_key(pki, directory, thing_name, &key, private_key, Vec::new())
    }

    /// With its key in a SoftHSM token of its own, generated there and never seen outside.
    pub(crate) fn with_token(
        pki: &Pki,
        directory: &Path,
        kind: KeyKind,
        thing_name: &str,
    ) -> Result<Self> {
        make_directory(directory)?;
        let (token, request) = token::provision(directory, kind, thing_name)?;
        let pulled_out = directory.join("pulled-out");
        Self::certified(
            pki,
            directory,
            thing_name,
            &request,
            token.uri,
            token.env,
            Some((token.store, pulled_out)),
        )
    }

    /// With its key in a token that has faults on order.
    pub(crate) fn with_faulty_token(
        pki: &Pki,
        directory: &Path,
        thing_name: &str,
    ) -> Result<(Self, FaultyToken)> {
        make_directory(directory)?;
        let (token, key) = FaultyToken::provision(directory)?;
        let (uri, env) = (token.uri()?, token.env());
        let device = Self::with_key(pki, directory, thing_name, &key, uri, env)?;
        Ok((device, token))
    }

    /// With its key in slot 0 of a simulated ATECC608, behind Microchip's own PKCS#11 module.
    pub(crate) fn with_chip(
        pki: &Pki,
        directory: &Path,
        thing_name: &str,
        module: &ModuleFolder,
    ) -> Result<(Self, I2cBus)> {
        make_directory(directory)?;
        let (key, bus) = secure_element::provision(directory)?;
        let (uri, env) = (module.configure()?, secure_element::env(&bus)?);
        let device = Self::with_key(pki, directory, thing_name, &key, uri, env)?;
        Ok((device, bus))
    }

    /// With a key that was made here and then put where edgerepl finds it.
    fn with_key(
        pki: &Pki,
        directory: &Path,
        thing_name: &str,
        key: &KeyPair,
        private_key: String,
        env: Vec<(String, String)>,
    ) -> Result<Self> {
        let request = device_request(thing_name, key)?;
        Self::certified(pki, directory, thing_name, &request, private_key, env, None)
    }

    fn certified(
        pki: &Pki,
        directory: &Path,
        thing_name: &str,
        request: &str,
        private_key: String,
        env: Vec<(String, String)>,
        token: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self> {
        let issued = pki.sign_device(request)?;
        let certificate = directory.join("device.crt");
        fs::write(&certificate, issued.pem).map_err(Error::doing(certificate.display()))?;
        Ok(Self {
            thing_name: thing_name.to_owned(),
            certificate,
            private_key,
            env,
            certificate_der: issued.der,
            token,
        })
    }

    pub(crate) fn certify(&mut self, pki: &Pki, request: &str) -> Result<()> {
        let issued = pki.sign_device(request)?;
        let place = &self.certificate;
        fs::write(place, issued.pem).map_err(Error::doing(place.display()))?;
        self.certificate_der = issued.der;
        Ok(())
    }

    /// Pulls the token out: the module works, its slot is empty.
    pub fn hide_token(&self) -> Result<()> {
        let (store, pulled_out) = self.token()?;
        fs::rename(store, pulled_out).map_err(Error::doing("the token can't be pulled out"))?;
        make_directory(store)
    }

    /// Puts the token back.
    pub fn restore_token(&self) -> Result<()> {
        let (store, pulled_out) = self.token()?;
        // A module that looked meanwhile may have left a lock file there.
        fs::remove_dir_all(store)
            .and_then(|()| fs::rename(pulled_out, store))
            .map_err(Error::doing("the token can't be put back"))
    }

    /// Copies what makes up the token, the folder `tokens` and the PIN file, for a device with a
    /// file system of its own.
    pub fn copy_token(&self, pin_folder: &Path, token_folder: &Path) -> Result<()> {
        let (store, _) = self.token()?;
        let pin = store.with_file_name("pin");
        fs::copy(&pin, pin_folder.join("pin")).map_err(Error::doing(pin.display()))?;
        copy_folder(store, &token_folder.join("tokens"))
    }

    fn token(&self) -> Result<&(PathBuf, PathBuf)> {
        self.token.as_ref().ok_or_else(|| {
            Error::new(format!(
                "{} keeps its key in a file: it has no token",
                self.thing_name
            ))
        })
    }
}

fn new_pem_key(kind: KeyKind) -> Result<String> {
    match kind {
        KeyKind::EcdsaP256 => KeyPair::generate()
            .map(|key| key.serialize_pem())
            .map_err(Error::doing("a P-256 key could not be made")),
        // ring signs with RSA keys but makes none.
        KeyKind::Rsa2048 => rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)
            .map_err(Error::doing("an RSA key could not be made"))?
            .to_pkcs8_pem(LineEnding::LF)
            .map(|pem| pem.to_string())
            .map_err(Error::doing("an RSA key could not be written")),
    }
}
