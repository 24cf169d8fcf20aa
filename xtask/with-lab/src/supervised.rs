//! edgerepl on a device without systemd: Buildroot's supervisor and its trial of a new image for real, with
//! BusyBox, Litestream and the lab.
//!
//! Owns the root that it runs in, which is made anew each time and is entered by root alone. What it
//! has to do there `supervised.sh` says.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use edgerepl_lab::{KeyKind, Lab, LabOptions};
use edgerepl_tools as tools;
use xtask::{Outcome, process, setup};

/// The user's number in Buildroot's table.
const USER: &str = "890";

/// What takes tens of seconds on a device takes some here.
const PACES: [(&str, &[(&str, &str)]); 2] = [
    (
        "edgerepl-supervise",
        &[
            ("PAUSE", "2"),
            ("PACE", "2"),
            ("PATIENCE", "2"),
            ("DEADLINE", "20"),
        ],
    ),
    ("edgerepl-boot-check", &[("LIMIT", "2"), ("PAUSE", "1")]),
];

/// Prints a figure, or what was found, a line each. True where nothing was.
pub(crate) fn without_systemd() -> Outcome {
    let lab = Lab::start(LabOptions {
        lifetime: Duration::from_secs(900),
        ..LabOptions::default()
    })?;
    let root = Root::make(&lab)?;
    let mut run = as_root(&[
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "chroot",
    ]);
    run.arg(&root.0).args(["/bin/sh", "/steps"]);
    let said = process::output(&mut run)?;
    let mut findings: Vec<String> = said
        .lines()
        .filter(|line| line.starts_with("FAIL"))
        .map(str::to_owned)
        .collect();
    if !said.ends_with("end\n") {
        findings.push("it came to no end".to_owned());
    }
    let compared = lab.compare("device", &root.0.join("data/app/app.db"))?;
    if !compared.is_equal() || compared.live == 0 {
        findings.push(format!("the replica is not the database: {compared:?}"));
    }
    if !findings.is_empty() {
        let log = fs::read_to_string(root.0.join("var/log/messages")).unwrap_or_default();
        findings.extend(log.lines().map(|line| format!("log: {line}")));
    }
    let steps = said.lines().filter(|line| line.starts_with("ok")).count();
    let (live, restored) = (compared.live, compared.restored);
    if findings.is_empty() {
        println!("{steps} steps, rows {live} = {restored}");
    }
    for finding in &findings {
        println!("{finding}");
    }
    Ok(findings.is_empty())
}

/// A root's folder.
struct Root(PathBuf);

impl Root {
    fn make(lab: &Lab) -> Result<Self, Box<dyn Error>> {
        let root = tools::root().join("target/layers/supervised");
        process::output(as_root(&["rm", "-rf"]).arg(&root))?;
        let this = Self(root);
        for folder in [
            "bin", "dev", "etc", "proc", "run", "tmp", "usr/bin", "var/log",
        ] {
            fs::create_dir_all(this.0.join(folder))?;
        }
        std::os::unix::fs::symlink("../run", this.0.join("var/run"))?;
        this.programs()?;
        this.scripts()?;
        this.device(lab)?;
        Ok(this)
    }

    /// BusyBox under all its names, and the two programs, with the libraries that they need.
    fn programs(&self) -> Result<(), Box<dyn Error>> {
        let litestream = tools::litestream(setup::LITESTREAM)?;
        let busybox = PathBuf::from("/bin/busybox");
        let edgerepl = tools::edgerepl()?;
        for (program, place) in [
            (&busybox, "bin/busybox"),
            (&edgerepl, "usr/bin/edgerepl"),
            (&litestream, "usr/bin/litestream"),
        ] {
            fs::copy(program, self.0.join(place))?;
            // A static program has none, which is no success to ldd.
            let needed = process::output(Command::new("ldd").arg(program)).unwrap_or_default();
            for library in needed
                .split_whitespace()
                .filter(|word| word.starts_with('/'))
            {
                let place = self.0.join(library.trim_start_matches('/'));
                fs::create_dir_all(place.parent().unwrap_or(&self.0))?;
                fs::copy(library, place)?;
            }
        }
        let names = process::output(Command::new(&busybox).arg("--list"))?;
        for name in names.lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", self.0.join("bin").join(name))?;
        }
        // As syslogd would write it.
        self.put(
            "bin/logger",
            "#!/bin/sh\nexec cat >>/var/log/messages\n",
            0o755,
        )
    }

    /// The scripts of the package, those that run for long with quicker paces; and in the place of a device's
    /// reboot and of what tells its boot loader a file for each.
    fn scripts(&self) -> Result<(), Box<dyn Error>> {
        let package = tools::root().join("buildroot/package/edgerepl");
        for (script, paces) in PACES {
            let mut text = fs::read_to_string(package.join(script))?;
            for (name, seconds) in paces {
                let line = text
                    .lines()
                    .find(|line| line.starts_with(&format!("{name}=")));
                let line = line
                    .ok_or_else(|| format!("{script} has no {name}"))?
                    .to_owned();
                text = text.replacen(&line, &format!("{name}={seconds}"), 1);
            }
            self.put(&format!("usr/libexec/{script}"), &text, 0o755)?;
        }
        for script in ["S60edgerepl", "S61edgerepl-boot-check"] {
            let text = fs::read_to_string(package.join(script))?;
            self.put(&format!("etc/init.d/{script}"), &text, 0o755)?;
        }
        for (place, file) in [
            ("bin/reboot", "rebooted"),
            ("usr/libexec/edgerepl-confirm", "confirmed"),
        ] {
            self.put(place, &format!("#!/bin/sh\n: >/run/{file}\n"), 0o755)?;
        }
        self.put("etc/os-release", "ID=test\nBUILD_ID=1\n", 0o644)?;
        self.put("steps", include_str!("supervised.sh"), 0o755)
    }

    /// A device of the lab's: users, identity, configuration.
    fn device(&self, lab: &Lab) -> Result<(), Box<dyn Error>> {
        let device = lab.provision_pem(KeyKind::EcdsaP256, "device")?;
        self.put(
            "etc/passwd",
            &format!("root::0:0::/:/bin/sh\nedgerepl:*:{USER}:{USER}::/:/bin/false\n"),
            0o644,
        )?;
        self.put(
            "etc/group",
            &format!("root:*:0:\nedgerepl:*:{USER}:\n"),
            0o644,
        )?;
        self.put("etc/hosts", "127.0.0.1 localhost\n", 0o644)?;
        let own = self.0.join("data/edgerepl");
        fs::create_dir_all(&own)?;
        fs::create_dir_all(self.0.join("data/app"))?;
        fs::copy(&device.certificate, own.join("device.crt"))?;
        fs::copy(&device.private_key, own.join("device.key"))?;
        fs::copy(lab.ca_file(), own.join("ca.pem"))?;
        let (endpoint, alias) = (
            lab.provider().endpoint(),
            lab.provider().role_alias().to_owned(),
        );
        let configuration = format!(
            "identity.certificate = \"/data/edgerepl/device.crt\"\n\
             identity.private_key = \"/data/edgerepl/device.key\"\n\
             credentials.endpoint = {endpoint:?}\n\
             credentials.role_alias = {alias:?}\n\
             credentials.region = \"us-east-1\"\n\
             credentials.ca_file = \"/data/edgerepl/ca.pem\"\n\
             database.path = \"/data/app/app.db\"\n\
             replication.rpo = \"36s\"\n\
             heartbeat.interval = \"1s\"\n"
        );
        self.put("etc/edgerepl/edgerepl.toml", &configuration, 0o644)?;
        let litestream = lab.litestream_config_text(
            &[Path::new("/data/app/app.db")],
            Path::new("/run/edgerepl/litestream.sock"),
        );
        self.put("etc/litestream.yml", &litestream, 0o644)?;
        let mut own = as_root(&["chown", "-R", &format!("{USER}:{USER}")]);
        own.arg(self.0.join("data/app"))
            .arg(self.0.join("data/edgerepl/device.key"));
        process::output(&mut own)?;
        let mut null = as_root(&["mknod", "-m", "666"]);
        process::output(null.arg(self.0.join("dev/null")).args(["c", "1", "3"]))?;
        Ok(())
    }

    fn put(&self, path: &str, text: &str, mode: u32) -> Result<(), Box<dyn Error>> {
        let place = self.0.join(path);
        fs::create_dir_all(place.parent().unwrap_or(&self.0))?;
        let _ = fs::remove_file(&place);
        fs::write(&place, text)?;
        Ok(fs::set_permissions(
            &place,
            fs::Permissions::from_mode(mode),
        )?)
    }
}

/// A command for root, in an environment like a boot's.
fn as_root(words: &[&str]) -> Command {
    let mut command = if setup::is_root() {
        Command::new("env")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.arg("env");
        sudo
    };
    command
        .args(["-i", "PATH=/bin:/usr/bin:/sbin:/usr/sbin"])
        .args(words);
    command
}
