//! `cargo xtask setup`: everything that the tasks need and cargo can't build. On a bare Debian with
//! Rust it installs what is missing; where nothing is missing it says and does nothing.
//!
//! It never touches the system beyond the packages named here. Whatever else it makes goes under
//! the repository's own `target`, where `edgerepl-tools` looks for it.

use std::{
    env,
    error::Error,
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use edgerepl_tools as tools;

pub use cryptoauthlib::{ACCEPT, LicenceAccepted};
pub(crate) use debian::Archive;
pub use emulator::Clock;
pub use litestream::VERSION as LITESTREAM;
pub use packages::is_root;
pub use toolchain::Toolchain;

use crate::process;
use crate::target::Target;
use packages::Package;

mod cryptoauthlib;
mod debian;
mod emulator;
mod layers;
mod litestream;
mod packages;
mod python;
mod standard_library;
mod toolchain;

/// Installs what the demo and the tests on this machine need.
pub fn setup() -> Result<(), SetupError> {
    let softhsm = Package::new("softhsm2", tools::softhsm_module().is_ok());
    // Reads the units in `dist/`, and starts nothing.
    let reads_units = ["systemd-analyze", "systemd-sysusers", "systemd-tmpfiles"];
    let systemd = Package::new(
        "systemd",
        reads_units.into_iter().all(|name| program(name).is_some()),
    );
    // Judges certificate requests.
    let mut needed = vec![softhsm, systemd, brings("openssl", "openssl")];
    if !litestream::is_installed() {
        needed.extend(litestream::needs());
    }
    packages::install(&needed)?;
    litestream::install()
}

/// Installs AWS's own clients, for the tests of what any of them can use.
pub fn aws_sdks() -> Result<(), SetupError> {
    AWS_SDKS.install().map(drop)
}

/// Where `edgerepl-tools` looks for them.
const AWS_SDKS: python::Environment = python::Environment {
    name: "aws-sdks",
    what: "boto3 and the AWS CLI",
    requirements: "awscli==1.46.3\nboto3==1.44.5\n",
};

/// Unpacks Debian's promtool, and installs none of Prometheus.
pub fn promtool() -> Result<(), SetupError> {
    unpacked(&["prometheus"], &tools::directory().join("prometheus"))
}

/// Builds Microchip's PKCS#11 module for this machine.
pub fn cryptoauthlib(accepted: LicenceAccepted) -> Result<PathBuf, SetupError> {
    cryptoauthlib::install(accepted)
}

/// Builds it for a device, whose C compiler is there already; there it is in the folder `there`.
pub fn cryptoauthlib_for(
    target: &Target,
    there: &Path,
    accepted: LicenceAccepted,
) -> Result<PathBuf, SetupError> {
    cryptoauthlib::install_for(target, there, accepted)
}

/// Installs what it takes to build for these machines.
pub fn cross(targets: &[&Target]) -> Result<Toolchain, SetupError> {
    toolchain::install(targets)
}

/// Debian's SQLite for a device, to link with: where it was unpacked. rusqlite needs a newer one than
/// that of Debian 12, whose 3.40 lacks functions.
pub fn sqlite(target: &Target) -> Result<PathBuf, SetupError> {
    let place = tools::directory().join(format!("sqlite-{}", target.arch));
    let packages = ["libsqlite3-0", "libsqlite3-dev"];
    let release = debian::LATER_RELEASE;
    let packages = packages.map(|name| format!("{name}:{}/{release}", target.debian));
    unpacked(&packages.each_ref().map(String::as_str), &place)?;
    place.canonicalize().map_err(about(&place))
}

/// Makes sure that these packages are unpacked in a place, none of them installed.
fn unpacked(packages: &[&str], place: &Path) -> Result<(), SetupError> {
    if !place.exists() {
        // One rename: what is in its place is whole.
        let scratch = place.with_extension(std::process::id().to_string());
        debian::Archive::open()?.unpack(packages, &scratch)?;
        fs::rename(&scratch, place).map_err(about(&scratch))?;
    }
    Ok(())
}

/// Installs what it takes to run a device's programs here, with the clock of theirs.
pub fn emulation(target: &Target, clock: Clock) -> Result<(), SetupError> {
    emulator::install(target, clock)
}

/// What an image is made with, besides what cargo builds.
pub struct ForImage {
    /// What builds for that machine.
    pub toolchain: Toolchain,
    /// None where no build of Litestream for such a machine is known.
    pub litestream: Option<PathBuf>,
}

/// Installs what it takes to make an image for such a machine.
pub fn image(target: &Target) -> Result<ForImage, SetupError> {
    let mut needed = vec![
        brings("cpio", "cpio"),
        Package::new("kmod", Path::new("/sbin/depmod").exists()),
        brings("squashfs-tools", "mksquashfs"),
        brings("systemd", "systemd-sysusers"),
    ];
    let litestream = litestream::Device::of(target);
    if litestream
        .as_ref()
        .is_some_and(|device| !device.is_installed())
    {
        needed.extend(litestream::needs());
    }
    packages::install(&needed)?;
    Ok(ForImage {
        toolchain: cross(&[target])?,
        litestream: litestream.map(|device| device.install()).transpose()?,
    })
}

/// Installs what makes a disk with slots, and signs what updates them; answers with where U-Boot for
/// QEMU's machines was unpacked.
pub fn slots() -> Result<PathBuf, SetupError> {
    let partitions = Package::new("fdisk", Path::new("/sbin/sfdisk").exists());
    let file_systems = Package::new("e2fsprogs", Path::new("/sbin/mkfs.ext4").exists());
    packages::install(&[
        partitions,
        file_systems,
        brings("openssl", "openssl"),
        brings("rauc", "rauc"),
        brings("u-boot-tools", "mkimage"),
    ])?;
    let place = tools::directory().join("u-boot");
    unpacked(&["u-boot-qemu"], &place)?;
    place.canonicalize().map_err(about(&place))
}

/// Installs what builds and judges Debian packages.
pub fn packaging() -> Result<(), SetupError> {
    let needed = [
        ("binutils", "readelf"),
        ("debhelper", "dh"),
        ("dpkg-dev", "dpkg-buildpackage"),
        ("lintian", "lintian"),
    ];
    packages::install(&needed.map(|(name, program)| brings(name, program)))
}

/// Installs what reads Yocto layers and Buildroot trees; answers with the Python that knows it.
pub fn layers() -> Result<PathBuf, SetupError> {
    layers::install()
}

/// Installs QEMU for whole machines, and what makes their disks.
pub fn qemu() -> Result<(), SetupError> {
    let disks = Package::new("e2fsprogs", Path::new("/sbin/debugfs").exists());
    let partitions = Package::new("fdisk", Path::new("/sbin/sfdisk").exists());
    packages::install(&[disks, partitions])?;
    if ["qemu-system-aarch64", "qemu-system-arm"]
        .iter()
        .all(|name| program(name).is_some())
    {
        return Ok(());
    }
    packages::install_backports(&QEMU)
}

/// All of one version: the release's own is years old, and apt would rather remove what is newer
/// than install beside it.
const QEMU: [&str; 3] = ["qemu-system-arm", "qemu-system-common", "qemu-system-data"];

/// A package that is missing where its program is.
fn brings(package: &str, name: &str) -> Package {
    Package::new(package, program(name).is_some())
}

/// The program of this name on the path.
fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let mut places = env::split_paths(&path).map(|directory| directory.join(name));
    places.find(|place| place.is_file())
}

/// Runs to the end and returns what was printed.
fn run(command: &mut Command, what: &str, next: &str) -> Result<String, SetupError> {
    process::output(command).map_err(|said| {
        let cause = process::last_line(&said).to_owned();
        SetupError::new(&what, cause, next)
    })
}

const AGAIN: &str = "run `cargo xtask setup` again";

fn about(path: &Path) -> impl FnOnce(std::io::Error) -> SetupError {
    move |cause| {
        let next = "see that the directory can be written, and run `cargo xtask setup` again";
        SetupError::new(&path.display(), cause.to_string(), next)
    }
}

/// One sentence: the thing, the cause, the next step.
#[derive(Debug)]
pub struct SetupError(String);

impl SetupError {
    fn new(thing: &dyn Display, cause: String, next: &str) -> Self {
        Self(format!("{thing}: {cause}; {next}"))
    }
}

impl Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for SetupError {}
