//! What the steps of an image are made of: programs that run to their end, and files in a root that
//! is not this machine's.
//!
//! No link is ever followed on the way to a file that is written: links in a root are meant for the
//! machine that boots it.

use std::{
    error::Error,
    fs,
    io::ErrorKind,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use crate::process;

/// Runs to the end and returns what was printed.
pub(super) fn run(command: &mut Command) -> Result<String, Box<dyn Error>> {
    process::output(command).map_err(|said| {
        let cause = process::last_line(&said);
        let name = process::name(command);
        format!("{name}: {cause}; remove target/image and run it again").into()
    })
}

/// Puts a file into a root, whatever was there.
pub(super) fn put(root: &Path, path: &str, text: &str) -> Result<(), Box<dyn Error>> {
    put_as(root, path, text, 0o644)
}

/// The same, with a mode of its own.
pub(super) fn put_as(root: &Path, path: &str, text: &str, mode: u32) -> Result<(), Box<dyn Error>> {
    let place = vacate(root, path)?;
    fs::write(&place, text)?;
    Ok(fs::set_permissions(
        &place,
        fs::Permissions::from_mode(mode),
    )?)
}

/// Puts a program into a root.
pub(super) fn put_program(root: &Path, path: &str, program: &Path) -> Result<(), Box<dyn Error>> {
    let place = vacate(root, path)?;
    fs::copy(program, &place)?;
    Ok(fs::set_permissions(
        &place,
        fs::Permissions::from_mode(0o755),
    )?)
}

/// Puts a link into a root.
pub(super) fn link(root: &Path, path: &str, leads_to: &str) -> Result<(), Box<dyn Error>> {
    Ok(symlink(leads_to, vacate(root, path)?)?)
}

fn vacate(root: &Path, path: &str) -> Result<std::path::PathBuf, Box<dyn Error>> {
    let place = root.join(path);
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(&place) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(place),
    }
}
