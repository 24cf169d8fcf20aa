//! Microchip's PKCS#11 module, built on this machine for tests: for this machine, or for a device.
//!
//! Owns its version and digest, and how it is built from the source archive on PyPI, which lacks one
//! generated header: `pkcs11_config.h.in` stands in for that. The licence allows use with Microchip's
//! products alone, so that nobody gets it without having said yes; it is never shipped.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use edgerepl_tools as tools;

use super::{AGAIN, Package, SetupError, about, brings, packages, program, run};
use crate::target::Target;

/// 3.7.9 by its own count.
const VERSION: &str = "20250916";
const SHA256: &str = "c73272d66f5e2fff7835b8872e92b41d8d9f4211ebfd38db854781922efc91ad";

/// As it is called in its folder.
const MODULE: &str = "libcryptoauth.so";

const CONFIG_HEADER: &str = include_str!("pkcs11_config.h.in");

/// The word of somebody who may use it.
pub const ACCEPT: &str = "--accept-microchip-licence";

const LICENCE: &str = "\
cryptoauthlib's licence: Subject to your compliance with its terms, you may use Microchip's software
and any derivatives of it exclusively with Microchip products. Here it is built from the source archive
on PyPI, under target/, and run against a simulated ATECC608; it is neither kept in this project nor
shipped with edgerepl. Whether you may do so is for you to know.";

/// That somebody gave that word.
#[derive(Clone, Copy)]
pub struct LicenceAccepted(());

impl LicenceAccepted {
    /// What there is to accept is printed, whether or not it is among these words.
    pub fn among(words: &[&str]) -> Option<Self> {
        println!("{LICENCE}\n");
        words.contains(&ACCEPT).then_some(Self(()))
    }
}

/// Makes sure of this machine's module, which reads its configuration where it is itself, and answers
/// with that folder.
pub(super) fn install(_: LicenceAccepted) -> Result<PathBuf, SetupError> {
    let place = tools::cryptoauthlib();
    fs::create_dir_all(&place).map_err(about(&place))?;
    let place = place.canonicalize().map_err(about(&place))?;
    built(&place, &place, None)
}

/// Makes sure of a device's module, which reads its configuration in the folder `there` of that
/// device, and answers with the folder that the module is in.
pub(super) fn install_for(
    target: &Target,
    there: &Path,
    _: LicenceAccepted,
) -> Result<PathBuf, SetupError> {
    let place = tools::cryptoauthlib().with_extension(target.arch);
    built(&place, there, Some(target))
}

fn built(place: &Path, there: &Path, target: Option<&Target>) -> Result<PathBuf, SetupError> {
    let pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output();
    packages::install(&[
        brings("cmake", "cmake"),
        brings("make", "make"),
        brings("gcc", "cc"),
        Package::new("python3-pip", pip.is_ok_and(|o| o.status.success())),
        Package::new("tar", program("tar").is_some()),
    ])?;
    if !place.join(MODULE).is_file() {
        println!(
            "setup: building cryptoauthlib {VERSION}, for use with Microchip's products alone"
        );
        let scratch = place.with_extension(std::process::id().to_string());
        let built = build(&scratch, place, there, target);
        let cleared = fs::remove_dir_all(&scratch).map_err(about(&scratch));
        built.and(cleared)?;
    }
    place.canonicalize().map_err(about(place))
}

fn build(
    scratch: &Path,
    place: &Path,
    there: &Path,
    target: Option<&Target>,
) -> Result<(), SetupError> {
    const WHAT: &str = "cryptoauthlib";
    fs::create_dir_all(scratch).map_err(about(scratch))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "download",
    ])
    .args(["--no-deps", "--no-binary=:all:", "--dest"])
    .arg(scratch)
    .arg(format!("cryptoauthlib=={VERSION}"));
    let next = "see that this machine reaches a Python package index, and run it again";
    run(&mut pip, WHAT, next)?;
    let archive = scratch.join(format!("cryptoauthlib-{VERSION}.tar.gz"));
    let digest = run(Command::new("sha256sum").arg(&archive), WHAT, AGAIN)?;
    if digest.split_whitespace().next() != Some(SHA256) {
        let cause = format!("its digest is not {SHA256}: {}", digest.trim());
        return Err(SetupError::new(&WHAT, cause, "find out who serves it"));
    }
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&archive).arg("-C").arg(scratch);
    run(&mut tar, WHAT, AGAIN)?;

    let source = scratch.join(format!("cryptoauthlib-{VERSION}/lib"));
    let header = source.join("pkcs11/pkcs11_config.h.in");
    fs::write(&header, CONFIG_HEADER).map_err(about(&header))?;
    fs::create_dir_all(place).map_err(about(place))?;
    let output = scratch.join("built");
    let mut configure = Command::new("cmake");
    configure.arg("-S").arg(&source).arg("-B").arg(&output);
    for option in [
        "CMAKE_BUILD_TYPE=Release",
        "ATCA_PKCS11=ON",
        "ATCA_HAL_I2C=ON",
        "DEFAULT_CONF_FILE_NAME=cryptoauthlib.conf",
        &format!("DEFAULT_CONF_PATH={}", there.display()),
        &format!("DEFAULT_STORE_PATH={}", there.join("slots").display()),
    ] {
        configure.arg(format!("-D{option}"));
    }
    if let Some(target) = target {
        configure.arg("-DCMAKE_SYSTEM_NAME=Linux");
        configure.arg(format!("-DCMAKE_C_COMPILER={}-gcc", target.gnu));
    }
    run(&mut configure, WHAT, "look at what cmake says")?;
    let mut compile = Command::new("cmake");
    compile
        .arg("--build")
        .arg(&output)
        .args(["--parallel", "2"]);
    run(&mut compile, WHAT, "look at what the compiler says")?;
    let (from, to) = (output.join(MODULE), place.join(MODULE));
    fs::copy(&from, &to).map(drop).map_err(about(&to))
}
