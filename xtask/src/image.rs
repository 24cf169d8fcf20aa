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
mod kernel;
mod payload;
mod stamp;
mod step;

/// What QEMU boots.
#[derive(Debug)]
pub(crate) struct Image {
    pub(crate) arch: &'static Target,
    pub(crate) kernel: PathBuf,
    /// Finds the disk with the serial number `root`, and goes on from there.
    pub(crate) initrd: PathBuf,
    /// A squashfs, for a disk with the serial number `root`.
    pub(crate) root: PathBuf,
}

/// Makes the images for these architectures, or for all.
pub(crate) fn image(arguments: &[&str]) -> Outcome {
    // To be found now rather than when the image is to be booted.
    setup::qemu()?;
    let mut table = String::new();
    for target in cross::targets(arguments)? {
        let image = build(target)?;
        for file in [&image.kernel, &image.initrd, &image.root] {
            let size = fs::metadata(file)?.len();
            table += &format!("{:<9} {size:>11}  {}\n", image.arch.arch, file.display());
        }
    }
    print!("{:<9} {:>11}  file\n{table}", "machine", "bytes");
    Ok(true)
}

/// Makes what is missing or out of date of an image.
pub(crate) fn build(target: &'static Target) -> Result<Image, Box<dyn Error>> {
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
        initrd: kernel.join(kernel::INITRD),
        root: place.join(payload::ROOT),
    })
}

/// Where all that belongs to a machine's image is kept.
fn directory(target: &Target) -> Result<PathBuf, Box<dyn Error>> {
    let directory = crate::root().join("target/image").join(target.arch);
    fs::create_dir_all(&directory)?;
    Ok(directory.canonicalize()?)
}

/// A part of this module's source. A step is due again when what it does was changed.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/image")
        .join(name)
}
