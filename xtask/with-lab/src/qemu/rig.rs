//! A device on the bench: the lab it talks to, its data partition, and the machine while it is on.
//!
//! Owns what is on the data partition before the first boot, and how it is read afterwards. What a
//! device has to do is for the tests to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{Comparison, Device, I2cBus, KeyKind, Lab, LabOptions, ModuleFolder};
use serde_json::Value;
use xtask::image::{Boot, Door, Image};
use xtask::process;

use super::machine::{Disk, Machine, Power};
use super::shell::Shell;
use super::{Failure, application, stranger};

/// The lab, as the device knows it: its address is in the image's `/etc/hosts`.
const LAB_NAME: &str = "lab.edgerepl.test";

/// Where the host's loopback is seen from inside.
pub(crate) const LAB_ADDRESS: &str = "10.0.2.2";

const DATA_SIZE: &str = "256M";

/// The same for a device with a database of 200 MB: beside it there may be its WAL, what Litestream keeps
/// of it, and a copy that is being restored.
const LARGE_DATA_SIZE: &str = "1536M";

/// The database that edgerepl writes to.
pub(crate) const DATABASE: &str = "app.db";

/// What `edgerepl status` ends with where there is no daemon to ask.
const NOT_RUNNING: i32 = 3;

/// The device's key in its token.
pub(crate) const DEVICE_KEY: &str = "pkcs11:token=edge;object=device;type=private?\
                                     pin-source=file:/data/edgerepl/private/pin";

/// Far more than anything takes on a busy machine that emulates another one.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// Where a device has Microchip's module, and the module its configuration.
pub(crate) const MODULE_FOLDER: &str = "/data/cryptoauthlib";

/// What the kernel is told where edgerepl-restore.service is to do its work: each image has it enabled,
/// on this condition.
pub(crate) const RESTORES: &str = "edgerepl.restore";

/// A device, its lab, and what it is told.
pub(crate) struct Rig<'a> {
    pub(crate) lab: Lab,
    pub(crate) device: Device,
    key: Key,
    image: &'a Image,
    folder: PathBuf,
    settings: Vec<String>,
    /// How many MiB the large database of its application has; none: there is no application.
    application: Option<u32>,
    /// Disks beside those that each device has.
    others: Vec<Disk>,
    /// Keys of the configuration that the image has to say, and not the device's layer.
    left_out: Vec<&'static str>,
}

/// Where the device's key is.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Key {
    /// On the data partition, which SoftHSM makes a token of.
    SoftHsm,
    /// In a chip on a bus.
    Chip,
}

impl<'a> Rig<'a> {
    /// A device with a P-256 key in a SoftHSM token, and credentials that live so long.
    pub(crate) fn new(
        image: &'a Image,
        folder: &Path,
        lifetime: Duration,
    ) -> Result<Self, Failure> {
        let lab = begin(image, folder, lifetime)?;
        let device = lab.provision_token(KeyKind::EcdsaP256, THING)?;
        Ok(Self {
            lab,
            device,
            key: Key::SoftHsm,
            image,
            folder: folder.to_owned(),
            settings: Vec::new(),
            application: None,
            others: Vec::new(),
            left_out: Vec::new(),
        })
    }

    /// A device with its key in a simulated ATECC608, on a bus that waits to be plugged in, and with
    /// the module in the folder `module` of this machine.
    pub(crate) fn with_chip(
        image: &'a Image,
        folder: &Path,
        lifetime: Duration,
        module: &Path,
    ) -> Result<(Self, I2cBus), Failure> {
        let lab = begin(image, folder, lifetime)?;
        let there = PathBuf::from(MODULE_FOLDER);
        let here = staged(folder).join(there.file_name().unwrap_or_default());
        fs::create_dir_all(&here)?;
        for file in fs::read_dir(module)? {
            let file = file?;
            fs::copy(file.path(), here.join(file.file_name()))?;
        }
        let (device, bus) = lab.provision_chip(THING, &ModuleFolder { here, there })?;
        let rig = Self {
            lab,
            device,
            key: Key::Chip,
            image,
            folder: folder.to_owned(),
            settings: Vec::new(),
            application: None,
            others: Vec::new(),
            left_out: Vec::new(),
        };
        Ok((rig, bus))
    }

    /// Adds a line of TOML, with a dotted key, to the device's configuration.
    pub(crate) fn set(&mut self, line: &str) {
        self.settings.push(line.to_owned());
    }

    /// Leaves a key to the image's own configuration, which the device's would win over.
    pub(crate) fn leave_to_image(&mut self, key: &'static str) {
        self.left_out.push(key);
    }

    /// Has the device replicate what its application writes, too. The application comes with a database
    /// of so many MiB on the next data partition that is formatted, and on no later one.
    pub(crate) fn share_with_application(&mut self, mib: u32) -> Result<(), Failure> {
        let folder = staged(&self.folder).join("app");
        fs::create_dir_all(&folder)?;
        application::provide(&folder, mib)?;
        self.application = Some(mib);
        Ok(())
    }

    /// What the device replicates, in the order in which edgerepl's and Litestream's configuration name it.
    pub(crate) fn databases(&self) -> Vec<&'static str> {
        let others = self.application.map(|_| application::DATABASES);
        let all = [DATABASE].into_iter().chain(others.into_iter().flatten());
        all.collect()
    }

    /// Formats the data partition and puts on it what a device is provisioned with.
    pub(crate) fn format(&self) -> Result<(), Failure> {
        let staged = staged(&self.folder);
        let own = staged.join("edgerepl");
        fs::create_dir_all(own.join("edgerepl.toml.d"))?;
        fs::create_dir_all(own.join("private"))?;
        fs::create_dir_all(staged.join("app"))?;
        fs::copy(&self.device.certificate, own.join("device.crt"))?;
        fs::copy(self.lab.ca_file(), own.join("ca.pem"))?;
        if self.key == Key::SoftHsm {
            self.device.copy_token(&own.join("private"), &own)?;
            let softhsm = "directories.tokendir = /data/edgerepl/tokens\n\
                           objectstore.backend = file\n\
                           slots.removable = false\nslots.mechanisms = ALL\n";
            fs::write(own.join("softhsm2.conf"), softhsm)?;
        }
        let databases = self.databases();
        let paths: Vec<PathBuf> = databases.iter().map(|name| inside(name)).collect();
        let litestream = self.lab.litestream_config_text(
            &paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(),
            Path::new("/run/edgerepl/litestream.sock"),
        );
        let litestream = litestream.replace("127.0.0.1", LAB_ADDRESS);
        fs::write(own.join("litestream.yml"), litestream)?;
        // As an application has it that shares its databases with edgerepl.
        let shared = databases
            .iter()
            .map(|name| format!("f /data/app/{name} 0660 edgerepl edgerepl -\n"));
        fs::write(own.join("database.conf"), shared.collect::<String>())?;
        fs::write(
            own.join("edgerepl.toml.d/50-bench.toml"),
            self.configuration(),
        )?;

        let data = self.data();
        let _ = fs::remove_file(&data);
        let mut format = Command::new("/sbin/mkfs.ext4");
        format.args(["-q", "-L", "data", "-E", "root_owner=0:0", "-d"]);
        let size = match self.application {
            Some(100..) => LARGE_DATA_SIZE,
            _ => DATA_SIZE,
        };
        process::output(format.args([&staged, &data]).arg(size))?;
        let _ = fs::remove_file(staged.join("app").join(application::MEASUREMENTS));
        Ok(())
    }

    fn configuration(&self) -> String {
        let key = match self.key {
            Key::SoftHsm => format!("{DEVICE_KEY}&module-path={}", self.softhsm()),
            Key::Chip => self.device.private_key.clone(),
        };
        let mut lines = vec![
            "identity.certificate = \"/data/edgerepl/device.crt\"".to_owned(),
            format!("identity.private_key = {key:?}"),
            format!(
                "credentials.endpoint = {:?}",
                self.lab.provider().endpoint()
            ),
            format!(
                "credentials.role_alias = {:?}",
                self.lab.provider().role_alias()
            ),
            "credentials.region = \"us-east-1\"".to_owned(),
            "credentials.ca_file = \"/data/edgerepl/ca.pem\"".to_owned(),
            "database.path = \"/data/app/app.db\"".to_owned(),
            "replication.rotation = \"restart\"".to_owned(),
            // A proof each 30 s.
            "replication.rpo = \"36s\"".to_owned(),
            "heartbeat.interval = \"1s\"".to_owned(),
        ];
        for setting in &self.settings {
            let key = |line: &str| line.split('=').next().map(|key| key.trim().to_owned());
            lines.retain(|line| key(line) != key(setting));
            lines.push(setting.clone());
        }
        lines.retain(|line| !self.left_out.iter().any(|key| line.starts_with(key)));
        let mut text = lines.join("\n") + "\n";
        if self.application.is_some() {
            let line = format!("database.path = {:?}\n", inside(DATABASE));
            text = text.replacen(&line, "", 1);
            for name in [DATABASE, application::MEASUREMENTS] {
                text += &format!("[[database]]\npath = {:?}\n", inside(name));
            }
        }
        text
    }

    /// SoftHSM's module, as the device has it.
    fn softhsm(&self) -> String {
        match self.image.door {
            Door::Port => format!("/usr/lib/{}/softhsm/libsofthsm2.so", self.image.arch.gnu),
            Door::Console => stranger::SOFTHSM_MODULE.to_owned(),
        }
    }

    /// Switches a new device on, with a data partition as it was provisioned.
    pub(crate) fn first_boot(&self) -> Result<Running, Failure> {
        self.format()?;
        self.boot(&Power::default())
    }

    /// Switches the device on and waits for its shell.
    pub(crate) fn boot(&self, power: &Power) -> Result<Running, Failure> {
        self.enter(self.switch_on(power)?, power)
    }

    /// Waits for the shell of a device that was switched on.
    pub(crate) fn enter(&self, mut machine: Machine, power: &Power) -> Result<Running, Failure> {
        let mut shell = Shell::open(&mut machine, self.image.door)?;
        if self.image.door == Door::Console {
            stranger::prepare(&mut shell, power.kernel == RESTORES)?;
        }
        Ok(Running { machine, shell })
    }

    /// Switches the device on, and does not wait for anything in it.
    pub(crate) fn switch_on(&self, power: &Power) -> Result<Machine, Failure> {
        Machine::start(self.image, &self.disks(), &self.folder, power)
    }

    /// What is plugged in. A disk with slots comes first, where a boot loader looks for it.
    fn disks(&self) -> Vec<Disk> {
        let disk = |name, file: &Path, is_writable| Disk {
            name,
            file: file.to_owned(),
            is_writable,
        };
        let mut disks = vec![match &self.image.boot {
            Boot::Kernel { root, .. } => disk("root", root, false),
            Boot::Loader { .. } => disk("slots", &self.slots(), true),
        }];
        disks.push(disk("data", &self.data(), true));
        disks.extend(self.others.iter().cloned());
        disks
    }

    /// Compares each database on the data partition of a device that is off with its replica. The copy
    /// that was compared is kept until the next time.
    pub(crate) fn compare(&self) -> Result<Vec<(&'static str, Comparison)>, Failure> {
        self.copy_databases(&self.data())?;
        let compare = |name: &'static str| {
            let replica = format!("{}/{name}", self.device.thing_name);
            let compared = self.lab.compare_with(&replica, &self.live().join(name))?;
            Ok((name, compared))
        };
        self.databases().into_iter().map(compare).collect()
    }

    /// The databases of a device whose power was cut, as it will find them: in [`live`](Self::live), from
    /// a copy of the data partition whose journal was replayed. It is an emulated machine's work of
    /// minutes to look at each page of a large one.
    pub(crate) fn copy_after_cut(&self) -> Result<(), Failure> {
        let after = self.folder.join("after-cut.ext4");
        copy(&self.data(), &after)?;
        let checked = Command::new("/sbin/e2fsck")
            .arg("-fp")
            .arg(&after)
            .output()?;
        // 1: the journal was replayed, and what a cut leaves was put in order.
        if !matches!(checked.status.code(), Some(0 | 1)) {
            let said = String::from_utf8_lossy(&checked.stdout);
            return Err(format!("the data partition is damaged: {said}").into());
        }
        self.copy_databases(&after)?;
        Ok(fs::remove_file(after)?)
    }

    fn copy_databases(&self, data: &Path) -> Result<(), Failure> {
        let _ = fs::remove_dir_all(self.live());
        fs::create_dir(self.live())?;
        for name in self.databases() {
            let live = self.live().join(name);
            copy_out(data, &format!("/app/{name}"), &live)?;
            // Not every device ends with an empty WAL.
            let wal = format!("{name}-wal");
            let _ = copy_out(data, &format!("/app/{wal}"), &live.with_file_name(&wal));
        }
        Ok(())
    }

    /// Where the databases are that were copied last.
    pub(crate) fn live(&self) -> PathBuf {
        self.folder.join("live")
    }

    /// The data partition's raw bytes.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data.ext4")
    }

    /// Where all that belongs to the device is kept.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The disk with slots, of a device that has them.
    pub(crate) fn slots(&self) -> PathBuf {
        slots(&self.folder)
    }

    /// Plugs one more disk in, from the next time on that the device is switched on. It may read it.
    pub(crate) fn plug_in(&mut self, name: &'static str, file: &Path) {
        self.others.push(Disk {
            name,
            file: file.to_owned(),
            is_writable: false,
        });
    }

    /// All that no flash and no log may ever hold.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let issued = self.lab.provider().issued().into_iter();
        issued
            .flat_map(|session| {
                let token = session.session_token;
                [Some(session.secret_access_key), token]
                    .into_iter()
                    .flatten()
            })
            .collect()
    }
}

/// The device's thing.
const THING: &str = "bench-device";

/// The disk that a device with slots is made with, in its folder.
fn slots(folder: &Path) -> PathBuf {
    folder.join("slots.img")
}

/// A lab, and a folder for its device with what the device is made with.
fn begin(image: &Image, folder: &Path, lifetime: Duration) -> Result<Lab, Failure> {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder)?;
    if let Boot::Loader { disk, .. } = &image.boot {
        copy(disk, &slots(folder))?;
    }
    Ok(Lab::start(LabOptions {
        lifetime,
        server_name: LAB_NAME.to_owned(),
        ..LabOptions::default()
    })?)
}

/// Copies a disk.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut command = Command::new("cp");
    command.args(["--sparse=always", "--reflink=auto"]);
    process::output(command.arg(from).arg(to))?;
    Ok(())
}

/// Copies a file from the data partition of a device that is off.
fn copy_out(data: &Path, inside: &str, to: &Path) -> Result<(), Failure> {
    let order = format!("dump {inside} {}", to.display());
    let mut debugfs = Command::new("/sbin/debugfs");
    process::output(debugfs.args(["-R", &order]).arg(data))?;
    if !to.is_file() {
        return Err(format!("there is no {inside} on the data partition").into());
    }
    Ok(())
}

/// Where a device has a database.
fn inside(name: &str) -> PathBuf {
    Path::new("/data/app").join(name)
}

/// What goes onto the data partition.
fn staged(folder: &Path) -> PathBuf {
    folder.join("staged")
}

/// A device that is on.
pub(crate) struct Running {
    pub(crate) machine: Machine,
    pub(crate) shell: Shell,
}

impl Running {
    /// What `edgerepl status --json` prints; `Null` where the daemon does not run.
    pub(crate) fn status(&mut self) -> Result<Value, Failure> {
        let (code, text) = self.shell.try_run("edgerepl status --json 2>/dev/null")?;
        if code == NOT_RUNNING {
            return Ok(Value::Null);
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    /// Waits until the status is as wanted.
    pub(crate) fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value, Failure> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            if wanted(&status) {
                return Ok(status);
            }
            if begun.elapsed() >= limit {
                let log = self.log()?;
                return Err(format!(
                    "no {what} within {limit:?}; the status is {status:#}; the journal:\n{log}"
                )
                .into());
            }
            thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until edgerepl says that all is well.
    pub(crate) fn wait_until_healthy(&mut self) -> Result<Value, Failure> {
        self.wait_for("health", LIMIT, |status| {
            status["state"] == "healthy" && status["replication"]["activity"] == "replicating"
        })
    }

    /// Waits until edgerepl has seen each of so many databases on its replica, and says that all is well.
    pub(crate) fn wait_for_proofs(&mut self, databases: usize) -> Result<Value, Failure> {
        self.wait_for("proofs", LIMIT, |status| {
            let all = status["databases"].as_array().into_iter().flatten();
            let proved = all.filter(|database| database["proof"].is_object());
            status["state"] == "healthy" && proved.count() == databases
        })
    }

    /// Waits until Litestream is seen to replicate after so many rotations.
    pub(crate) fn wait_for_rotations(&mut self, rotations: u64) -> Result<Value, Failure> {
        self.wait_for("rotations", LIMIT, |status| {
            status["replication"]["rotations"].as_u64() >= Some(rotations)
                && status["replication"]["activity"] == "replicating"
        })
    }

    /// The journal of edgerepl and of what it runs, with seconds since the kernel's start.
    pub(crate) fn log(&mut self) -> Result<String, Failure> {
        self.shell.run(
            "journalctl --no-pager --output=short-monotonic --lines=2000 --unit=edgerepl \
             --unit=edgerepl-restore --unit=litestream --unit=edgerepl-litestream.service \
             --unit=edgerepl-litestream.path",
        )
    }

    /// A property of a unit.
    pub(crate) fn property(&mut self, unit: &str, name: &str) -> Result<String, Failure> {
        let text = self
            .shell
            .run(&format!("systemctl show --property={name} --value {unit}"))?;
        Ok(text.trim().to_owned())
    }

    /// The mode and the owner of a path, as `ls` has them: BusyBox need not have `stat`.
    pub(crate) fn owner(&mut self, path: &str) -> Result<(String, String), Failure> {
        let line = self.shell.run(&format!("ls -ld {path}"))?;
        let mut words = line.split_whitespace().map(str::to_owned);
        words
            .next()
            .zip(words.nth(1))
            .ok_or_else(|| format!("`ls -ld {path}` says {line:?}").into())
    }

    /// Makes the token's object a pipe that nobody writes to, so that whoever opens it hangs.
    pub(crate) fn hang_token(&mut self) -> Result<String, Failure> {
        self.shell.run(
            "(cd /data/edgerepl/tokens/*/ && mv token.object /data/edgerepl/aside && \
             mkfifo token.object && chown edgerepl: token.object)",
        )
    }

    /// Makes it a token again.
    pub(crate) fn let_go_of_token(&mut self) -> Result<String, Failure> {
        self.shell
            .run("mv /data/edgerepl/aside $(echo /data/edgerepl/tokens/*/)token.object")
    }

    /// Ends edgerepl, which lets Litestream sync once more, and switches the device off.
    pub(crate) fn shut_down(mut self) -> Result<(), Failure> {
        self.shell
            .run("systemctl stop edgerepl.service litestream.service")?;
        self.power_off()
    }

    /// Switches it off in order.
    pub(crate) fn power_off(mut self) -> Result<(), Failure> {
        self.shell.send("systemctl --no-block poweroff")?;
        let ended = self.machine.wait_until_off(LIMIT)?;
        if !ended.success() {
            return Err(format!("QEMU ended badly: {ended}").into());
        }
        Ok(())
    }
}
