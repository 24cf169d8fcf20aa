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

pub use file::File;

mod base;
mod file;
mod foreign;
mod kernel;
mod payload;
pub mod slots;
mod stamp;
mod step;

/// A firmware.
#[derive(Clone, Debug)]
pub struct Image {
    /// For which machine it is.
    pub arch: &'static Target,
    /// How QEMU boots it.
    pub boot: Boot,
    /// How a test gets in.
    pub door: Door,
}

/// How QEMU boots an image.
#[derive(Clone, Debug)]
pub enum Boot {
    /// QEMU loads the kernel itself. A machine that resets stays off.
    Kernel {
        /// As QEMU loads it.
        kernel: PathBuf,
        /// Finds the disk with the serial number `root`, and goes on from there. None where the
        /// kernel does so itself.
        initrd: Option<PathBuf>,
        /// The root's file system, for a disk with the serial number `root`.
        root: PathBuf,
    },
    /// A boot loader finds all of it on a disk, which a device writes to: see [`slots`].
    Loader {
        /// What the machine has in the place of its firmware.
        loader: PathBuf,
        /// The disk as a device is made with it. Each device has a copy of its own.
        disk: PathBuf,
    },
}

impl Boot {
    fn files(&self) -> Vec<&Path> {
        match self {
            Self::Kernel {
                kernel,
                initrd,
                root,
            } => [Some(kernel), initrd.as_ref(), Some(root)]
                .into_iter()
                .flatten()
                .map(PathBuf::as_path)
                .collect(),
            Self::Loader { loader, disk } => vec![loader, disk],
        }
    }
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

/// Makes the images for these architectures, or for all; with `--slots` those with two slots as well.
pub fn image(arguments: &[&str]) -> Outcome {
    const SLOTS: &str = "--slots";
    let with_slots = arguments.contains(&SLOTS);
    let arguments: Vec<&str> = arguments
        .iter()
        .copied()
        .filter(|argument| *argument != SLOTS)
        .collect();
    // To be found now rather than when the image is to be booted.
    setup::qemu()?;
    let mut table = String::new();
    for target in cross::targets(&arguments)? {
        let mut images = vec![build(target)?];
        if with_slots {
            images.push(slots::build(target)?.image);
        }
        for file in images.iter().flat_map(|image| image.boot.files()) {
            let size = fs::metadata(file)?.len();
            table += &format!("{:<9} {size:>11}  {}\n", target.arch, file.display());
        }
    }
    print!("{:<9} {:>11}  file\n{table}", "machine", "bytes");
    Ok(true)
}

/// Makes what is missing or out of date of an image.
pub fn build(target: &'static Target) -> Result<Image, Box<dyn Error>> {
    let directory = directory(target)?;
    let parts = Parts::make(target, &directory, &PLAIN)?;
    let payload = parts.payload(target, payload::More::default());
    let place = directory.join("root");
    stamp::unless_current(&place, &payload.inputs(), |new| payload.build(new))?;
    Ok(Image {
        arch: target,
        boot: Boot::Kernel {
            kernel: parts.kernel.join(kernel::KERNEL),
            initrd: Some(parts.kernel.join(kernel::INITRD)),
            root: place.join(payload::ROOT),
        },
        door: Door::Port,
    })
}

/// What one kind of image has, beside what each has.
struct Kind {
    packages: &'static [&'static str],
    modules: kernel::More,
    /// The sources that say so.
    sources: &'static [&'static str],
}

/// The image that QEMU boots without a boot loader.
const PLAIN: Kind = Kind {
    packages: &[],
    modules: kernel::More {
        early: &[],
        late: &[],
    },
    sources: &[],
};

/// What a root is made from.
struct Parts {
    base: PathBuf,
    kernel: PathBuf,
    edgerepl: PathBuf,
    litestream: Option<PathBuf>,
}

impl Parts {
    /// Makes in a folder those that are due.
    fn make(target: &Target, folder: &Path, kind: &Kind) -> Result<Self, Box<dyn Error>> {
        let setup::ForImage {
            toolchain,
            litestream,
        } = setup::image(target)?;
        let inputs = |own: &[&str]| -> Vec<PathBuf> {
            own.iter()
                .chain(kind.sources)
                .map(|name| source(name))
                .collect()
        };
        let base = folder.join("base");
        stamp::unless_current(&base, &inputs(&["base.rs"]), |new| {
            base::build(target, kind.packages, new)
        })?;
        let kernel = folder.join("kernel");
        stamp::unless_current(&kernel, &inputs(&["kernel.rs", "files/init"]), |new| {
            kernel::build(target, &kind.modules, new)
        })?;
        Ok(Self {
            base,
            kernel,
            edgerepl: cross::build(&toolchain, target)?,
            litestream,
        })
    }

    fn payload<'a>(&'a self, target: &'a Target, more: payload::More<'a>) -> payload::Payload<'a> {
        payload::Payload {
            target,
            base: &self.base,
            kernel: &self.kernel,
            edgerepl: &self.edgerepl,
            litestream: self.litestream.as_deref(),
            more,
        }
    }
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
