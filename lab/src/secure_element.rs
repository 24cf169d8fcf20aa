//! A device's secure element: a simulated ATECC608 on the lab's bus, and Microchip's module set up for
//! it.
//!
//! Owns the module's two configuration files. They are where the module was built to look, so that
//! there is one such device at a time on a machine.

use std::fs;
use std::path::{Path, PathBuf};

use p256::{SecretKey, pkcs8::DecodePrivateKey};
use rcgen::KeyPair;

use crate::{
    chip::Chip,
    error::{Error, Result},
    files::make_directory,
    i2c::I2cBus,
    tools,
};

/// A chip as it comes from a provisioning service for custom parts: the default address, a key in
/// slot 0, room for another in slot 1, no PIN.
const SLOT: &str = "label = edge\n\
                    interface = i2c,0xC0,0\n\
                    device = ATECC608A\n\
                    object = private,device,0\n\
                    object = public,device,0\n\
                    freeslots = 1\n";

const SERIAL: [u8; 9] = [0x01, 0x23, 0x8d, 0x4a, 0x51, 0x07, 0x6c, 0x22, 0xee];

/// The folder of Microchip's module, `libcryptoauth.so`, which was built to read its configuration
/// there.
#[derive(Clone, Debug)]
pub struct ModuleFolder {
    /// Where it is now.
    pub here: PathBuf,
    /// Where it is for the device that uses it.
    pub there: PathBuf,
}

impl ModuleFolder {
    /// This machine's own.
    pub fn of_this_machine() -> Self {
        let place = tools::cryptoauthlib();
        let here = place.canonicalize().unwrap_or(place);
        let there = here.clone();
        Self { here, there }
    }

    /// Writes the configuration and answers with the key's URI.
    pub(crate) fn configure(&self) -> Result<String> {
        let slots = self.here.join("slots");
        // Objects that the module has made are files beside the slot's.
        if slots.exists() {
            fs::remove_dir_all(&slots).map_err(Error::doing(slots.display()))?;
        }
        make_directory(&slots)?;
        let store = format!("filestore = {}\n", self.there.join("slots").display());
        let configuration = self.here.join("cryptoauthlib.conf");
        for (file, text) in [
            (configuration, store.as_str()),
            (slots.join("0.conf"), SLOT),
        ] {
            fs::write(&file, text).map_err(Error::doing(file.display()))?;
        }
        Ok(format!(
            "pkcs11:token=edge;object=device;type=private?module-path={}",
            self.there.join("libcryptoauth.so").display()
        ))
    }
}

/// A new chip on a bus of its own. The first value is its key, which nobody but a test knows.
pub(crate) fn provision(directory: &Path) -> Result<(KeyPair, I2cBus)> {
    let key = KeyPair::generate().map_err(Error::doing("a P-256 key could not be made"))?;
    let secret = SecretKey::from_pkcs8_pem(&key.serialize_pem());
    let secret = secret.map_err(Error::doing("the chip does not take the key"))?;
    let bus = I2cBus::start(Chip::new(secret, SERIAL), &directory.join("i2c"))?;
    Ok((key, bus))
}

/// What a process needs in its environment to find the chip.
pub(crate) fn env(bus: &I2cBus) -> Result<Vec<(String, String)>> {
    let shim = tools::i2c_shim()?.display().to_string();
    Ok(vec![bus.env(), ("LD_PRELOAD".to_owned(), shim)])
}
