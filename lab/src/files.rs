//! Files and folders as provisioning leaves them. Owns the modes that secrets have; never knows what is
//! in a file.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use crate::error::{Error, Result};

pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::doing(path.display()))
}

pub(crate) fn write_secret(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o600)))
        .map_err(Error::doing(path.display()))
}

/// Copies a folder and all that is in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    copy(from, to).map_err(Error::doing(from.display()))
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let from = entry?.path();
        let to = to.join(from.file_name().unwrap_or_default());
        if from.is_dir() {
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}
