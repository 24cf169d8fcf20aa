//! An image that somebody else built: by Yocto, by Buildroot, by hand.
//!
//! Owns how its kernel and its root are found, by names that builders give. A root in a partition is copied out of its disk, so
//! that whatever else is on that disk stays out of a test's way.

use std::{
    error::Error,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use super::{Boot, Door, Image};
use crate::process;
use crate::target::Target;

/// What a kernel is called beside an image.
const KERNELS: [&str; 4] = ["Image", "zImage", "vmlinuz", "kernel"];

/// What a partition with a root is called, or how its name begins: of several slots the first.
const ROOTS: [&str; 2] = ["root", "system"];

/// The file is a root's file system, or a disk with a partition named `root…` on it; the kernel is in
/// the same folder, with an initramfs named `initrd` where it needs one.
pub(super) fn image(
    arch: &'static Target,
    file: &Path,
    scratch: &Path,
) -> Result<Image, Box<dyn Error>> {
    let folder = file.parent().unwrap_or(Path::new("."));
    let beside = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let kernel = KERNELS.into_iter().find_map(beside).ok_or_else(|| {
        let (folder, names) = (folder.display(), KERNELS.join(", "));
        format!("{folder} has no kernel beside the image; put it there as one of {names}")
    })?;
    Ok(Image {
        arch,
        boot: Boot::Kernel {
            kernel,
            initrd: beside("initrd"),
            root: root(file, scratch)?,
        },
        door: Door::Console,
    })
}

fn root(file: &Path, scratch: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let Some(partition) = partition(file)? else {
        return Ok(file.to_owned());
    };
    fs::create_dir_all(scratch)?;
    let place = scratch.join("root.img");
    let mut disk = File::open(file)?;
    disk.seek(SeekFrom::Start(partition.start))?;
    io::copy(&mut disk.take(partition.size), &mut File::create(&place)?)?;
    Ok(place)
}

/// Where a root is on a disk, in bytes.
struct Partition {
    start: u64,
    size: u64,
}

/// None where the file has no table of partitions.
fn partition(file: &Path) -> Result<Option<Partition>, Box<dyn Error>> {
    let mut sfdisk = Command::new("/sbin/sfdisk");
    let Ok(said) = process::output(sfdisk.arg("--json").arg(file)) else {
        return Ok(None);
    };
    let table: Value = serde_json::from_str(&said)?;
    let table = &table["partitiontable"];
    let partitions = table["partitions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let is_named = |partition: &&Value| {
        let name = partition["name"].as_str().unwrap_or_default();
        ROOTS.iter().any(|root| name.starts_with(root))
    };
    // An MBR knows no names: there it is the first with a file system of Linux's.
    let is_of_linux = |partition: &&Value| partition["type"] == "83";
    let named = partitions.iter().find(is_named);
    let found = named
        .or_else(|| partitions.iter().find(is_of_linux))
        .ok_or_else(|| {
            let file = file.display();
            format!(
                "{file} has no partition whose name begins with {}",
                ROOTS.join(" or ")
            )
        })?;
    let sector = table["sectorsize"].as_u64().unwrap_or(512);
    let bytes = |key: &str| found[key].as_u64().unwrap_or_default() * sector;
    Ok(Some(Partition {
        start: bytes("start"),
        size: bytes("size"),
    }))
}
