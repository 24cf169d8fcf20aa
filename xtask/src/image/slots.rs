//! `cargo xtask image --slots`: a disk with two slots, which U-Boot boots and RAUC updates.
//!
//! Owns what is on that disk and where, and what a root has to be in a slot. `/data` is no part of it: as
//! with each image it is a disk of its own with the label `data`, which tests make and read from
//! outside. What a slot's root is changed to is for [`Root`] to say, what updates it for
//! [`Bundle`].

use std::{
    error::Error,
    fs::{self, File as DiskFile},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{Boot, Door, File, Image, Parts, kernel, payload, source, stamp, step};
use crate::setup;
use crate::target::{self, Target};

mod bundle;
mod keys;
mod parts;
mod root;

pub use bundle::{Bundle, Signer};
pub use root::Root;

/// The second is `dist/`'s own.
const ENABLED: &[&str] = &["rauc-mark-good.service", "edgerepl-boot-check.service"];

/// How long a new image may take to be healthy on a tests' device, in seconds. It is 15 min where nothing else is
/// said; an emulated machine takes up to 40 s.
pub const TRIAL: Duration = Duration::from_secs(60);

/// The tree that each slot's root is made from.
const TREE: &str = "tree";

const BOOT_SCRIPT: &str = "boot.scr";

/// The disk's partitions in their order, in MiB. The first is where U-Boot looks for its script; of `env`
/// the script and `fw_env.config` know what is where.
const PARTITIONS: [(&str, u64); 4] = [
    ("boot", 4),
    ("env", 1),
    ("slot-a", root::SLOT_MIB),
    ("slot-b", root::SLOT_MIB),
];

/// Where the first of them begins, in MiB: the table is before it.
const FIRST_MIB: u64 = 1;

const MIB: u64 = 1 << 20;

/// A firmware with slots, and what its updates are made from.
#[derive(Debug)]
pub struct Slots {
    /// What QEMU boots: both slots hold version 1.
    pub image: Image,
    /// The tree.
    tree: PathBuf,
    /// Of who signs bundles.
    keys: PathBuf,
}

/// Makes what is missing or out of date of an image with slots.
pub fn build(target: &'static Target) -> Result<Slots, Box<dyn Error>> {
    let uboot = setup::slots()?;
    let folder = super::directory(target)?.join("slots");
    fs::create_dir_all(&folder)?;
    let keys = folder.join("keys");
    stamp::unless_current(&keys, &[source("slots/keys.rs")], keys::make)?;
    let made = Parts::make(target, &folder, &parts::KIND)?;
    let files = files(target, &keys)?;
    let payload = made.payload(
        target,
        payload::More {
            files: &files,
            enabled: ENABLED,
        },
    );
    let place = folder.join("root");
    let mut inputs = payload.inputs();
    inputs.extend([source("slots.rs"), keys.with_extension("stamp")]);
    stamp::unless_current(&place, &inputs, |new| {
        let tree = new.join(TREE);
        payload.make_tree(&tree)?;
        for name in [kernel::KERNEL, kernel::INITRD] {
            let from = made.kernel.join(name);
            step::put_program(&tree, &format!("boot/{name}"), &from)?;
        }
        Ok(())
    })?;
    let tree = place.join(TREE);
    let disk = folder.join("disk");
    let inputs = [
        place.with_extension("stamp"),
        source("slots.rs"),
        source("slots/root.rs"),
        source("files/slots"),
    ];
    stamp::unless_current(&disk, &inputs, |new| make_disk(target, &tree, new))?;
    Ok(Slots {
        image: Image {
            arch: target,
            boot: Boot::Loader {
                loader: loader(target, &uboot)?,
                disk: disk.join(DISK),
            },
            door: Door::Port,
        },
        tree,
        keys,
    })
}

impl Slots {
    /// Gives a disk with slots another root in slot A.
    pub fn put_into_slot_a(&self, root: &Root, disk: &Path) -> Result<(), Box<dyn Error>> {
        let scratch = disk.with_extension("slot");
        root.write(&self.tree, &scratch)?;
        let before = PARTITIONS.iter().take_while(|(name, _)| *name != "slot-a");
        let start = FIRST_MIB + before.map(|(_, mib)| mib).sum::<u64>();
        // Each byte: what was there was another root.
        copy_into(disk, &scratch, start, "notrunc")?;
        Ok(fs::remove_file(scratch)?)
    }
}

/// Copies a file system into a disk, so many MiB from its beginning.
fn copy_into(disk: &Path, content: &Path, mib: u64, how: &str) -> Result<(), Box<dyn Error>> {
    let mut dd = Command::new("dd");
    dd.arg(format!("if={}", content.display()))
        .arg(format!("of={}", disk.display()))
        .arg(format!("seek={mib}"))
        .arg(format!("conv={how}"))
        .args(["bs=1M", "status=none"]);
    step::run(&mut dd).map(drop)
}

/// What a bundle for such a machine says, so that no other machine takes it.
pub fn compatible(target: &Target) -> String {
    format!("edgerepl-{}", target.arch)
}

/// What a root has in a slot, beside what each has.
fn files(target: &Target, keys: &Path) -> Result<Vec<File>, Box<dyn Error>> {
    let system = include_str!("files/slots/system.conf");
    Ok(vec![
        File::text(
            "etc/rauc/system.conf",
            system.replace("@COMPATIBLE@", &compatible(target)),
        ),
        File::text(
            "etc/rauc/ca.pem",
            fs::read_to_string(keys.join(keys::AUTHORITY))?,
        ),
        File::text(
            "etc/fw_env.config",
            include_str!("files/slots/fw_env.config"),
        ),
        File::program(
            "usr/lib/rauc/pre-install",
            include_str!("files/slots/pre-install"),
        ),
        File::text(
            "usr/lib/systemd/system/rauc.service.d/image.conf",
            include_str!("files/slots/rauc.conf"),
        ),
        File::text(
            "usr/lib/systemd/system/edgerepl-boot-check.service.d/image.conf",
            include_str!("files/slots/boot-check.conf")
                .replace("@TRIAL@", &TRIAL.as_secs().to_string()),
        ),
        File::text(
            "usr/lib/systemd/system/rauc-mark-good.service",
            include_str!("files/slots/rauc-mark-good.service"),
        ),
    ])
}

/// U-Boot for QEMU's machine.
fn loader(target: &Target, unpacked: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let machine = if target == &target::AARCH64 {
        "qemu_arm64"
    } else {
        "qemu_arm"
    };
    let loader = unpacked
        .join("usr/lib/u-boot")
        .join(machine)
        .join("u-boot.bin");
    match loader.is_file() {
        true => Ok(loader),
        false => Err(format!(
            "{}: the package u-boot-qemu no longer has it; see what became of it",
            loader.display()
        )
        .into()),
    }
}

const DISK: &str = "disk.img";

fn make_disk(target: &Target, tree: &Path, into: &Path) -> Result<(), Box<dyn Error>> {
    println!("image: making the disk with slots for {}", target.arch);
    let boot = into.join("boot");
    fs::create_dir(&boot)?;
    let script = into.join("boot.cmd");
    fs::write(&script, boot_script(target))?;
    let mut mkimage = Command::new("mkimage");
    mkimage.args(["-T", "script", "-C", "none", "-n", "slots", "-d"]);
    step::run(mkimage.arg(&script).arg(boot.join(BOOT_SCRIPT)))?;
    let slot = into.join("slot.ext4");
    Root::version(1).write(tree, &slot)?;
    let boot_system = into.join("boot.ext4");

    let disk = into.join(DISK);
    let mut table = String::from("label: gpt\n");
    let mut start = FIRST_MIB;
    for (name, mib) in PARTITIONS {
        table += &format!("start={start}MiB, size={mib}MiB, name={name}\n");
        let content = match name {
            "boot" => {
                root::file_system(&boot, &boot_system, name, mib)?;
                Some(&boot_system)
            }
            "env" => None,
            _ => Some(&slot),
        };
        if let Some(content) = content {
            copy_into(&disk, content, start, "notrunc,sparse")?;
        }
        start += mib;
    }
    // The end has a copy of the table.
    let file = DiskFile::options().write(true).open(&disk)?;
    file.set_len((start + 1) * MIB)?;
    let layout = into.join("layout");
    fs::write(&layout, table)?;
    let mut sfdisk = Command::new("/sbin/sfdisk");
    sfdisk.arg("--quiet").arg(&disk);
    step::run(sfdisk.stdin(DiskFile::open(&layout)?))?;
    for scratch in [script, slot, boot_system, layout] {
        fs::remove_file(scratch)?;
    }
    Ok(fs::remove_dir_all(boot)?)
}

/// The environment is empty at first: the script gives each slot three attempts then.
fn boot_script(target: &Target) -> String {
    let boot = if target == &target::AARCH64 {
        "booti"
    } else {
        "bootz"
    };
    include_str!("files/slots/boot.cmd").replace("@BOOT@", boot)
}
