//! `cargo xtask image`: the firmware that the QEMU tests boot, with a read-only root.
//!
//! Owns which steps make it, in which order, and which of them are due. It runs no program of the
//! image's own architecture, takes nothing from this machine's system, and needs no privilege.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use crate::Outcome;
use crate::cross;
use crate::setup;
use crate::target::Target;

mod base;
mod foreign;
mod kernel;
mod payload;
mod stamp;
mod step;

/// What QEMU boots.
#[derive(Debug)]
pub struct Image {
    /// For which machine it is.
    pub arch: &'static Target,
    /// The kernel, as QEMU loads it.
    pub kernel: PathBuf,
    /// Finds the disk with the serial number `root`, and goes on from there. None where the kernel
    /// does so itself.
    pub initrd: Option<PathBuf>,
    /// The root's file system, for a disk with the serial number `root`.
    pub root: PathBuf,
    /// How a test gets in.
    pub door: Door,
}

/// What the tests put into our own image, and into one that somebody else built: the module of a token
/// in files, how a restore is asked for, and whose the data are.
pub const SOFTHSM: &str = include_str!("image/files/softhsm.conf");
/// See [`SOFTHSM`].
pub const RESTORE: &str = include_str!("image/files/restore.conf");
/// See [`SOFTHSM`].
pub const OWNERS: &str = include_str!("image/files/test-data.conf");

/// How a test gets in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// A root shell on a port of its own.
    Port,
    /// The serial console, where root logs in without a password.
    Console,
}

/// Makes the images for these architectures, or for all.
pub fn image(arguments: &[&str]) -> Outcome {
    // To be found now rather than when the image is to be booted.
    setup::qemu()?;
    let mut table = String::new();
    for target in cross::targets(arguments)? {
        let image = build(target)?;
        for file in [
            Some(&image.kernel),
            image.initrd.as_ref(),
            Some(&image.root),
        ] {
            let Some(file) = file else { continue };
            let size = fs::metadata(file)?.len();
            table += &format!("{:<9} {size:>11}  {}\n", image.arch.arch, file.display());
        }
    }
    print!("{:<9} {:>11}  file\n{table}", "machine", "bytes");
    Ok(true)
}

/// Makes what is missing or out of date of an image.
pub fn build(target: &'static Target) -> Result<Image, Box<dyn Error>> {
    let directory = directory(target)?;
    let parts = setup::image(target)?;
    let base = directory.join("base");
    stamp::unless_current(&base, &[source("base.rs")], |new| base::build(target, new))?;
    let kernel = directory.join("kernel");
    let inputs = [source("kernel.rs"), source("files/init")];
    stamp::unless_current(&kernel, &inputs, |new| kernel::build(target, new))?;
    let edgerepl = cross::build(&parts.toolchain, target)?;
    let payload = payload::Payload {
        target,
        base: &base,
        modules: &kernel.join(kernel::MODULES),
        edgerepl: &edgerepl,
        litestream: parts.litestream.as_deref(),
    };
    let place = directory.join("root");
    stamp::unless_current(&place, &payload.inputs(), |new| payload.build(new))?;
    Ok(Image {
        arch: target,
        kernel: kernel.join(kernel::KERNEL),
        initrd: Some(kernel.join(kernel::INITRD)),
        root: place.join(payload::ROOT),
        door: Door::Port,
    })
}

/// An image that was built elsewhere: see [`foreign`].
pub fn built_elsewhere(arch: &'static Target, file: &Path) -> Result<Image, Box<dyn Error>> {
    let file = file
        .canonicalize()
        .map_err(|e| format!("{}: {e}", file.display()))?;
    foreign::image(arch, &file, &directory(arch)?.join("elsewhere"))
}

/// Where all that belongs to a machine's image is kept.
fn directory(target: &Target) -> Result<PathBuf, Box<dyn Error>> {
    let directory = edgerepl_tools::root()
        .join("target/image")
        .join(target.arch);
    fs::create_dir_all(&directory)?;
    Ok(directory.canonicalize()?)
}

/// A part of this module's source. A step is due again when what it does was changed.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/image")
        .join(name)
}
