//! Debian's kernel, the few of its modules that the emulated machine needs, and the initial RAM disk
//! that finds the root.
//!
//! Owns which modules these are. What the initial RAM disk does stands in `files/init`.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::step;
use crate::setup::Archive;
use crate::target::Target;

pub(super) const KERNEL: &str = "vmlinuz";
pub(super) const INITRD: &str = "initrd";
/// What belongs into the root's `/usr/lib/modules`.
pub(super) const MODULES: &str = "modules";

/// What it takes to reach the root's disk, and to be spoken to; and the watchdog, which systemd
/// looks for when it starts.
const EARLY: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "squashfs",
    "i6300esb",
];

/// What stands in for the watchdog where the kernel has no i6300esb, as Debian's for armv7.
const WITHOUT_WATCHDOG: &[&str] = &["softdog"];

/// What the root loads when it meets the device or the need. A kernel may have some of these built
/// in.
const LATE: &[&str] = &[
    "crc32c_generic",
    "ext4",
    "i2c-dev",
    "i2c-tiny-usb",
    "usbip-core",
    "vhci-hcd",
    "virtio-rng",
    "virtio_net",
];

const INIT: &str = include_str!("files/init");

/// Modules of one image, beside what each has.
pub(super) struct More {
    /// Loaded before the root is mounted.
    pub(super) early: &'static [&'static str],
    /// See [`LATE`].
    pub(super) late: &'static [&'static str],
}

pub(super) fn build(target: &Target, more: &More, into: &Path) -> Result<(), Box<dyn Error>> {
    let archive = Archive::open()?;
    let meta = format!("{}:{}", kernel_package(target)?, target.debian);
    let image = archive
        .depends(&meta)?
        .into_iter()
        .find(|name| name.starts_with("linux-image-"))
        .ok_or_else(|| format!("{meta}: it depends on no kernel; see what became of it"))?;
    println!("image: getting {image} for {}", target.arch);
    let scratch = into.join("unpacked");
    let packages = [&*image, "busybox-static"].map(|name| format!("{name}:{}", target.debian));
    archive.unpack(&packages.each_ref().map(String::as_str), &scratch)?;
    let release = image.trim_start_matches("linux-image-");

    fs::rename(
        scratch.join(format!("boot/vmlinuz-{release}")),
        into.join(KERNEL),
    )?;
    depmod(&scratch, release)?;
    let from = scratch.join("lib/modules").join(release);
    let modules = Modules::read(&from)?;

    let wanted = [EARLY, more.early].concat();
    let mut early: Vec<&PathBuf> = modules.with_needed(&wanted).collect();
    if !early.iter().any(|file| name(file) == "i6300esb") {
        early.extend(modules.with_needed(WITHOUT_WATCHDOG));
    }

    let kept = into.join("kept");
    let to = kept.join("lib/modules").join(release);
    let wanted = [LATE, more.late].concat();
    for file in early.iter().copied().chain(modules.with_needed(&wanted)) {
        copy(&from.join(file), &to.join(file))?;
    }
    for list in [
        "modules.order",
        "modules.builtin",
        "modules.builtin.modinfo",
    ] {
        copy(&from.join(list), &to.join(list))?;
    }
    depmod(&kept, release)?;
    fs::rename(kept.join("lib/modules"), into.join(MODULES))?;
    fs::remove_dir_all(&kept)?;

    let early: Vec<PathBuf> = early.iter().map(|file| from.join(file)).collect();
    initrd(
        &scratch.join("bin/busybox"),
        &early,
        &into.join("ramdisk"),
        &into.join(INITRD),
    )?;
    Ok(fs::remove_dir_all(&scratch)?)
}

fn kernel_package(target: &Target) -> Result<&'static str, String> {
    match target.debian {
        "arm64" => Ok("linux-image-arm64"),
        "armhf" => Ok("linux-image-armmp"),
        other => Err(format!(
            "no kernel is known for {other}: name one in xtask/src/image/kernel.rs"
        )),
    }
}

fn depmod(root: &Path, release: &str) -> Result<(), Box<dyn Error>> {
    // Not on everybody's path.
    let mut depmod = Command::new("/sbin/depmod");
    step::run(depmod.arg("--basedir").arg(root).arg(release)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).map_err(|cause| format!("{}: {cause}", from.display()))?;
    Ok(())
}

/// All modules of a kernel, by name, each with the files to load for it in their order.
struct Modules(BTreeMap<String, Vec<PathBuf>>);

impl Modules {
    fn read(directory: &Path) -> Result<Self, Box<dyn Error>> {
        let table = fs::read_to_string(directory.join("modules.dep"))?;
        Ok(Self::parse(&table))
    }

    /// `FILE: NEEDED NEEDED…`, where the last is to be loaded first.
    fn parse(table: &str) -> Self {
        let modules = table.lines().filter_map(|line| {
            let (file, needed) = line.split_once(':')?;
            let needed = needed.split_whitespace().rev();
            let files = needed.chain([file]).map(PathBuf::from).collect();
            Some((name(Path::new(file)), files))
        });
        Self(modules.collect())
    }

    /// The files of these modules and of what they need, in the order to load them. Some come more
    /// than once.
    fn with_needed<'a>(&'a self, names: &'a [&str]) -> impl Iterator<Item = &'a PathBuf> {
        let files = names
            .iter()
            .filter_map(|wanted| self.0.get(&name(Path::new(wanted))));
        files.flatten()
    }
}

/// A module's name, as the kernel has it: a dash is an underscore.
fn name(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().replace('-', "_")
}

/// A RAM disk with busybox, the modules, and a script that is told their order.
fn initrd(
    busybox: &Path,
    modules: &[PathBuf],
    tree: &Path,
    archive: &Path,
) -> Result<(), Box<dyn Error>> {
    for directory in ["bin", "dev", "modules", "proc", "root", "sys"] {
        fs::create_dir_all(tree.join(directory))?;
    }
    step::put_program(tree, "bin/busybox", busybox)?;
    let mut order = String::new();
    for module in modules {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        let place = tree.join("modules").join(&*name);
        if !place.exists() {
            fs::copy(module, place)?;
            order += &name;
            order += "\n";
        }
    }
    step::put(tree, "modules/order", &order)?;
    step::put_as(tree, "init", INIT, 0o755)?;

    let mut find = Command::new("find")
        .args([".", "-mindepth", "1"])
        .current_dir(tree)
        .stdout(Stdio::piped())
        .spawn()?;
    let names = find.stdout.take().ok_or("find has no output")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--format=newc", "--quiet", "--owner=0:0"]);
    cpio.arg("--file").arg(archive).current_dir(tree);
    step::run(cpio.stdin(names))?;
    if !find.wait()?.success() {
        return Err("find: it can't list the RAM disk; run it again".into());
    }
    Ok(fs::remove_dir_all(tree)?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::Modules;

    #[test]
    fn loads_first_what_a_module_needs() {
        let table = "\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/lib/crc16.ko:
kernel/drivers/char/hw_random/virtio-rng.ko:
";
        let modules = Modules::parse(table);
        let order = |names: &[&str]| -> Vec<String> {
            let files: Vec<&PathBuf> = modules.with_needed(names).collect();
            files.iter().map(|file| super::name(file)).collect()
        };
        assert_eq!(order(&["ext4"]), ["jbd2", "mbcache", "crc16", "ext4"]);
        assert_eq!(order(&["virtio_rng", "crc16"]), ["virtio_rng", "crc16"]);
        assert!(order(&["built_in"]).is_empty());
    }
}
