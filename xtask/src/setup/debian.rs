//! Debian's archive, also for architectures and releases that this machine does not have.
//!
//! Owns a view of the archive that is apart from the machine's own apt: packages are downloaded and
//! unpacked, and none is installed. Neither `/etc/apt` nor dpkg's architectures are changed. Which
//! mirror serves it is read from the machine's apt sources.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use edgerepl_tools as tools;

use super::{SetupError, about, run};
use crate::target;

/// The release whose builds of Rust's standard library fit an older release's compiler too, and whose
/// SQLite is new enough for rusqlite.
pub(super) const LATER_RELEASE: &str = "trixie";

/// Lists older than this are asked for again: a mirror drops what was superseded.
const FRESH: Duration = Duration::from_secs(24 * 60 * 60);

/// A view of the archive with lists of packages in it.
pub(crate) struct Archive {
    directory: PathBuf,
}

impl Archive {
    /// Opens the view; makes it, or brings it up to date, where that is due.
    pub(crate) fn open() -> Result<Self, SetupError> {
        let directory = tools::directory().join("debian");
        fs::create_dir_all(&directory).map_err(about(&directory))?;
        let archive = Self {
            directory: directory.canonicalize().map_err(about(&directory))?,
        };
        if !archive.is_fresh() {
            println!("setup: reading the lists of Debian's archive");
            let machine = Machine::read()?;
            archive.configure(&machine)?;
            archive.update(&machine)?;
        }
        Ok(archive)
    }

    /// Downloads packages and unpacks them, one over the other, into a directory. Each is named as
    /// `apt-get download` takes it: `name:arch`, `name:arch=version`, `name:arch/release`.
    pub(crate) fn unpack(&self, packages: &[&str], into: &Path) -> Result<(), SetupError> {
        let scratch = self
            .directory
            .join(format!("unpack.{}", std::process::id()));
        let unpacked = self.download(packages, &scratch).and_then(|files| {
            fs::create_dir_all(into).map_err(about(into))?;
            files.iter().try_for_each(|file| {
                let mut dpkg = Command::new("dpkg-deb");
                dpkg.arg("--extract").arg(file).arg(into);
                run(&mut dpkg, &file.display().to_string(), AGAIN).map(drop)
            })
        });
        let cleared = fs::remove_dir_all(&scratch).map_err(about(&scratch));
        unpacked.and(cleared)
    }

    /// Downloads packages into a directory and returns all package files that are in it.
    pub(super) fn download(
        &self,
        packages: &[&str],
        into: &Path,
    ) -> Result<Vec<PathBuf>, SetupError> {
        println!("setup: downloading {}", packages.join(" "));
        fs::create_dir_all(into).map_err(about(into))?;
        let mut apt = self.apt("apt-get");
        apt.args(["--quiet", "download"]).args(packages);
        run(apt.current_dir(into), &packages.join(" "), AGAIN)?;
        package_files(into)
    }

    /// Downloads packages and all that they depend on into a directory, as for a machine of this
    /// architecture that has no package yet.
    pub(crate) fn resolve(
        &self,
        architecture: &str,
        packages: &[&str],
        into: &Path,
    ) -> Result<Vec<PathBuf>, SetupError> {
        let partial = into.join("partial");
        fs::create_dir_all(&partial).map_err(about(&partial))?;
        let mut apt = self.apt("apt-get");
        apt.args(["--quiet", "--yes", "--no-install-recommends"])
            .args(["--download-only", "install"])
            .args(packages)
            .arg(format!("--option=APT::Architecture={architecture}"))
            .arg(format!("--option=Dir::Cache::archives={}", into.display()))
            // What is cached of the lists is for this machine's architecture.
            .args([
                "--option=Dir::Cache::pkgcache=",
                "--option=Dir::Cache::srcpkgcache=",
            ]);
        run(&mut apt, &format!("the packages for {architecture}"), AGAIN)?;
        package_files(into)
    }

    /// The packages that a package depends on.
    pub(crate) fn depends(&self, package: &str) -> Result<Vec<String>, SetupError> {
        let mut apt = self.apt("apt-cache");
        apt.args(["--important", "depends", package]);
        let table = run(&mut apt, package, AGAIN)?;
        let names = table
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "));
        let bare = |name: &str| {
            name.split_once(':')
                .map_or(name, |parts| parts.0)
                .to_owned()
        };
        Ok(names.map(bare).collect())
    }

    /// The release with newer versions of some packages.
    pub(super) fn backports(&self) -> Result<String, SetupError> {
        Ok(format!("{}-backports", Machine::read()?.release))
    }

    /// The versions of a package that the archive has, the preferred one first.
    pub(super) fn versions(&self, package: &str) -> Result<Vec<String>, SetupError> {
        let mut apt = self.apt("apt-cache");
        apt.args(["madison", package]);
        let table = run(&mut apt, package, AGAIN)?;
        let versions = table.lines().filter_map(|line| line.split('|').nth(1));
        Ok(versions.map(|version| version.trim().to_owned()).collect())
    }

    fn is_fresh(&self) -> bool {
        let written = fs::metadata(self.sources()).and_then(|found| found.modified());
        written.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < FRESH))
    }

    /// apt's configuration: all that it writes is in here, and its way to the mirror is the
    /// machine's own.
    fn configure(&self, machine: &Machine) -> Result<(), SetupError> {
        const PARTS: [&str; 6] = [
            "cache/archives/partial",
            "etc/apt.conf.d",
            "etc/preferences.d",
            "etc/sources.list.d",
            "state/lists/partial",
            "log",
        ];
        for part in PARTS {
            let part = self.directory.join(part);
            fs::create_dir_all(&part).map_err(about(&part))?;
        }
        let mut text = format!(
            "Dir::Cache \"cache\";\n\
             Dir::Etc \"etc\";\n\
             Dir::Etc::Netrc \"/etc/apt/auth.conf\";\n\
             Dir::Etc::NetrcParts \"/etc/apt/auth.conf.d\";\n\
             Dir::Log \"log\";\n\
             Dir::State \"state\";\n\
             Dir::State::Status \"/dev/null\";\n\
             APT::Architectures {{ \"{}\"; }};\n\
             APT::Default-Release \"/^{}(|-security)$/\";\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n",
            machine.architectures().join("\"; \""),
            machine.release,
        );
        let mut dump = Command::new("apt-config");
        let dump = run(dump.args(["dump", "Acquire"]), "apt-config", AGAIN)?;
        for line in dump.lines() {
            let key = line.strip_prefix("Acquire::").unwrap_or_default();
            if WAY_TO_MIRROR.iter().any(|begin| key.starts_with(begin)) {
                text += line;
                text += "\n";
            }
        }
        let file = self.configuration();
        fs::write(&file, text).map_err(about(&file))
    }

    /// Reads the lists of each release. A mirror may serve a broken list for one architecture, and
    /// apt then does without the whole release: that architecture is left out of that release.
    fn update(&self, machine: &Machine) -> Result<(), SetupError> {
        let mut sources = String::new();
        for (suite, address) in machine.suites() {
            let source = |architectures: &[&str]| {
                let architectures = architectures.join(",");
                format!("deb [arch={architectures} signed-by={KEYS}] {address} {suite} main\n")
            };
            let all = machine.architectures();
            let served = if self.read_lists(&source(&all)).is_ok() {
                all
            } else {
                let mut served = Vec::new();
                for architecture in all {
                    match self.read_lists(&source(&[architecture])) {
                        Ok(()) => served.push(architecture),
                        Err(error) if suite == machine.release => return Err(error),
                        Err(_) => println!("setup: {suite} has no good list for {architecture}"),
                    }
                }
                served
            };
            if !served.is_empty() {
                sources += &source(&served);
            }
        }
        let file = self.sources();
        fs::write(&file, sources).map_err(about(&file))
    }

    /// Reads the lists of one release, and keeps those of the others.
    fn read_lists(&self, source: &str) -> Result<(), SetupError> {
        let file = self.directory.join("etc").join("one-source.list");
        fs::write(&file, source).map_err(about(&file))?;
        let mut apt = self.apt("apt-get");
        apt.args(["--quiet", "update", "-o", "APT::Update::Error-Mode=any"])
            .args(["-o", "APT::Get::List-Cleanup=false", "-o"])
            .arg(format!("Dir::Etc::SourceList={}", file.display()));
        run(
            &mut apt,
            "the lists of Debian's archive",
            "see that this machine reaches the mirror that its apt sources name, and run it again",
        )
        .map(drop)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = Command::new(program);
        self.look_through(&mut apt).env("LC_ALL", "C");
        apt
    }

    /// Has a program of apt's see the archive as this view does. The folder is told with each call,
    /// and not written down, so that a workspace can be moved.
    pub(super) fn look_through<'a>(&self, apt: &'a mut Command) -> &'a mut Command {
        apt.env("APT_CONFIG", self.configuration())
            .arg(format!("--option=Dir={}", self.directory.display()))
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("apt.conf")
    }

    /// Written last: where it is, the lists are.
    fn sources(&self) -> PathBuf {
        self.directory.join("etc").join("sources.list")
    }
}

/// The package files in a directory.
fn package_files(directory: &Path) -> Result<Vec<PathBuf>, SetupError> {
    let files = fs::read_dir(directory).map_err(about(directory))?;
    let paths = files.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths
        .filter(|path| path.extension().is_some_and(|end| end == "deb"))
        .collect())
}

const AGAIN: &str = "run it again";

/// Debian's own keys; apt itself depends on their package.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// How settings begin that say how the mirror is reached.
const WAY_TO_MIRROR: [&str; 6] = ["http", "https", "Check-", "ForceIPv", "Proxy", "Retries"];

/// What this machine is, and where it gets its packages.
struct Machine {
    architecture: String,
    release: String,
    main: String,
    security: Option<String>,
}

impl Machine {
    fn read() -> Result<Self, SetupError> {
        let mut dpkg = Command::new("dpkg");
        let architecture = run(dpkg.arg("--print-architecture"), "dpkg", NO_DEBIAN)?;
        let about_system = fs::read_to_string("/etc/os-release").unwrap_or_default();
        let release = about_system
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .filter(|_| about_system.lines().any(|line| line == "ID=debian"))
            .ok_or_else(|| {
                let cause = "it names no release of Debian".to_owned();
                SetupError::new(&"/etc/os-release", cause, NO_DEBIAN)
            })?;
        // apt reads its sources in all their forms, and only says here what it would ask for.
        let mut apt = Command::new("apt-get");
        let uris = run(apt.args(["update", "--print-uris"]), "apt-get", AGAIN)?;
        let find = |suite: &str| {
            let found = sources(&uris).find(|source| source.1 == suite);
            found.map(|(address, _)| address.to_owned())
        };
        let main = find(release).ok_or_else(|| {
            let cause = format!("they name no mirror for {release}");
            SetupError::new(
                &"the apt sources",
                cause,
                "add one to /etc/apt/sources.list",
            )
        })?;
        Ok(Self {
            architecture: architecture.trim().to_owned(),
            security: find(&format!("{release}-security")),
            release: release.to_owned(),
            main,
        })
    }

    /// This machine's architecture, then the devices'.
    fn architectures(&self) -> Vec<&str> {
        let devices = target::ALL.map(|target| target.debian);
        let own = self.architecture.as_str();
        let others = devices.into_iter().filter(|name| *name != own);
        std::iter::once(own).chain(others).collect()
    }

    /// The releases to look into, and where each of them is.
    fn suites(&self) -> Vec<(String, &str)> {
        let release = &self.release;
        let mut suites = vec![
            (release.clone(), self.main.as_str()),
            (format!("{release}-backports"), self.main.as_str()),
        ];
        if let Some(security) = &self.security {
            suites.push((format!("{release}-security"), security));
        }
        if release != LATER_RELEASE {
            suites.push((LATER_RELEASE.to_owned(), &self.main));
        }
        suites
    }
}

const NO_DEBIAN: &str = "on another system add Rust's targets and GCC for them by its own means";

/// The addresses and releases in apt's answer: `'ADDRESS/dists/RELEASE/InRelease' …`.
fn sources(uris: &str) -> impl Iterator<Item = (&str, &str)> {
    uris.lines().filter_map(|line| {
        let (uri, _) = line.strip_prefix('\'')?.split_once('\'')?;
        uri.strip_suffix("/InRelease")?.split_once("/dists/")
    })
}

#[cfg(test)]
mod tests {
    use super::sources;

    #[test]
    fn reads_what_apt_would_ask_for() {
        let uris = "\
'mirror+file:/etc/apt/mirrors/debian.list/dists/bookworm/InRelease' a_InRelease 0 \n\
'tor+http://m.example/debian-security/dists/bookworm-security/InRelease' b_InRelease 0 \n\
'http://m.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' c_Packages 0 \n";
        let found: Vec<_> = sources(uris).collect();
        let expected = [
            ("mirror+file:/etc/apt/mirrors/debian.list", "bookworm"),
            ("tor+http://m.example/debian-security", "bookworm-security"),
        ];
        assert_eq!(found, expected);
    }
}
