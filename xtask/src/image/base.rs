//! The part of the root that is Debian's, unpacked and never installed.
//!
//! Owns the list of packages, and what of them a device has no use for.

use std::{
    error::Error,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::step;
use crate::setup::Archive;
use crate::target::Target;

/// What the packages were, by version: beside the image, for whoever asks what is in it.
pub(super) const MANIFEST: &str = "packages.txt";

/// The tree.
pub(super) const TREE: &str = "tree";

/// What each image is made of; what these depend on comes along.
const PACKAGES: &[&str] = &[
    "base-files",
    "base-passwd",
    "coreutils",
    "dash",
    "e2fsprogs",
    "findutils",
    "grep",
    "iproute2",
    "kmod",
    "libc-bin",
    "libsofthsm2",
    "mawk",
    "mount",
    "procps",
    "sed",
    "softhsm2",
    "sqlite3",
    "systemd",
    "systemd-sysv",
    "udev",
    "usbip",
    "util-linux",
];

/// What comes along, but only serves to install packages or to log in.
const LEFT_OUT: &[&str] = &[
    "adduser",
    "debconf",
    "dpkg",
    "hwdata",
    "libdb5.3",
    "libfile-find-rule-perl",
    "libgdbm-compat4",
    "libgdbm6",
    "libnumber-compare-perl",
    "libperl5.36",
    "libsemanage-common",
    "libsemanage2",
    "libsepol2",
    "libtext-glob-perl",
    "login",
    "passwd",
    "perl",
    "perl-base",
    "perl-modules-5.36",
    "sensible-utils",
    "tar",
    "ucf",
];

/// What nobody reads or runs on a device.
const PATHS_LEFT_OUT: &[&str] = &[
    "etc/init.d",
    "lib/systemd/catalog",
    "lib/udev/hwdb.d",
    "usr/lib/systemd/catalog",
    "usr/lib/udev/hwdb.d",
    "usr/lib/*/gconv",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/common-licenses",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/pam",
    "usr/share/pixmaps",
    "usr/share/zsh",
    "var/*",
];

/// `more`: what this image has beside what each has.
pub(super) fn build(target: &Target, more: &[&str], into: &Path) -> Result<(), Box<dyn Error>> {
    println!("image: getting Debian's packages for {}", target.arch);
    let downloaded = into.join("packages");
    let wanted = [PACKAGES, more].concat();
    let mut packages = Archive::open()?.resolve(target.debian, &wanted, &downloaded)?;
    packages.sort();
    let root = into.join(TREE);
    // A merged /usr, as Debian's installer makes it. The packages hold to neither.
    for part in ["bin", "sbin", "lib"] {
        fs::create_dir_all(root.join("usr").join(part))?;
        symlink(Path::new("usr").join(part), root.join(part))?;
    }
    let mut manifest = String::new();
    for package in &packages {
        let mut dpkg = Command::new("dpkg-deb");
        dpkg.args(["--show", "--showformat", "${Package} ${Version}"]);
        let line = step::run(dpkg.arg(package))?;
        let name = line.split(' ').next().unwrap_or_default();
        if !LEFT_OUT.contains(&name) {
            unpack(package, &root)?;
            manifest += &line;
            manifest += "\n";
        }
    }
    fs::write(into.join(MANIFEST), manifest)?;
    fs::remove_dir_all(&downloaded)?;
    users(&root)
}

/// Over what is there: a directory of the package may be a link here.
fn unpack(package: &PathBuf, root: &Path) -> Result<(), Box<dyn Error>> {
    let mut dpkg = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()?;
    let archive = dpkg.stdout.take().ok_or("dpkg-deb has no output")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--keep-directory-symlink", "--no-same-owner"]);
    tar.args(["--preserve-permissions", "--directory"])
        .arg(root)
        .args(["--anchored", "--wildcards"])
        .args(
            PATHS_LEFT_OUT
                .iter()
                .map(|path| format!("--exclude=./{path}")),
        );
    let unpacked = step::run(tar.stdin(archive));
    if !dpkg.wait()?.success() {
        let name = package.display();
        return Err(format!("{name}: dpkg-deb can't read it; run it again").into());
    }
    unpacked.map(drop)
}

/// The users and groups that Debian's installer would make; systemd's and ours are added later.
fn users(root: &Path) -> Result<(), Box<dyn Error>> {
    for file in ["passwd", "group"] {
        let master = root.join(format!("usr/share/base-passwd/{file}.master"));
        let text = fs::read_to_string(master)?.replace("/bin/bash", "/bin/sh");
        step::put(root, &format!("etc/{file}"), &text)?;
    }
    Ok(())
}
