//! A token whose every call can be made to fail: the folder that the faulty PKCS#11 module reads.
//!
//! Owns what is in that folder. The module itself is a crate of its own, for it is loaded by the
//! processes under test and never by the lab.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::KeyPair;

use crate::{
    error::{Error, Result},
    files::{make_directory, write_secret},
    tools,
};

/// The variable that tells the module its folder.
const FOLDER: &str = "EDGEREPL_FAULTY_TOKEN";

/// The PIN of a token that has one.
const PIN: &str = "1234";

/// A token with one P-256 key, and faults on order.
#[derive(Clone, Debug)]
pub struct FaultyToken {
    folder: PathBuf,
    pin_file: PathBuf,
}

impl FaultyToken {
    /// Makes one in `directory`, which wants a PIN. The second value is its key.
    pub(crate) fn provision(directory: &Path) -> Result<(Self, KeyPair)> {
        let token = Self {
            folder: directory.join("faulty"),
            pin_file: directory.join("pin"),
        };
        make_directory(&token.folder)?;
        let key = KeyPair::generate().map_err(Error::doing("a P-256 key could not be made"))?;
        write_secret(&token.folder.join("key.pem"), &key.serialize_pem())?;
        write_secret(&token.folder.join("pin"), PIN)?;
        write_secret(&token.pin_file, PIN)?;
        Ok((token, key))
    }

    /// The key's URI.
    pub(crate) fn uri(&self) -> Result<String> {
        Ok(format!(
            "pkcs11:token=faulty;object=device;type=private?module-path={}&pin-source=file:{}",
            tools::faulty_module()?.display(),
            self.pin_file.display()
        ))
    }

    /// What a process needs in its environment to reach it.
    pub(crate) fn env(&self) -> Vec<(String, String)> {
        vec![(FOLDER.to_owned(), self.folder.display().to_string())]
    }

    /// The file that the URI names as the PIN's.
    pub fn pin_file(&self) -> &Path {
        &self.pin_file
    }

    /// Orders faults, a line each, in place of all earlier ones: `FUNCTION FAULT [AFTER]`, as the
    /// module's own documentation says.
    pub fn order(&self, orders: &str) -> Result<()> {
        // Renamed, for the module reads the file at each call.
        let (new, file) = (self.folder.join("orders.new"), self.folder.join("orders"));
        fs::write(&new, orders)
            .and_then(|()| fs::rename(&new, &file))
            .map_err(Error::doing(file.display()))
    }

    /// Every function that was called until now, by whichever process, in order.
    pub fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        let functions = calls.lines().filter_map(|call| call.split(' ').nth(1));
        functions.map(str::to_owned).collect()
    }

    /// How often this function was called until now.
    pub fn calls_of(&self, function: &str) -> usize {
        self.calls().iter().filter(|call| *call == function).count()
    }

    /// How many wrong PINs it has counted since the last right one.
    pub fn wrong_pins(&self) -> u8 {
        let tries = fs::read(self.folder.join("tries")).unwrap_or_default();
        tries.first().copied().unwrap_or_default()
    }

    /// Somebody logs in by hand, with the right PIN.
    pub fn forget_wrong_pins(&self) -> Result<()> {
        let file = self.folder.join("tries");
        fs::remove_file(&file).map_err(Error::doing(file.display()))
    }

    /// Takes its key away: it is as new.
    pub fn forget_key(&self) -> Result<()> {
        let file = self.folder.join("key.pem");
        fs::remove_file(&file).map_err(Error::doing(file.display()))
    }

    /// Has it ask for no PIN, as an ATECC608 does.
    pub fn ask_for_no_pin(&self) -> Result<()> {
        let file = self.folder.join("pin");
        fs::remove_file(&file).map_err(Error::doing(file.display()))
    }
}
