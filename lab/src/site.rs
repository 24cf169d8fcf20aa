//! A device's site: its database, its configuration, and the real edgerepl that runs there.
//!
//! Owns what a test or the demo would otherwise repeat: the files, the process, its log, its status.
//! Knows edgerepl only from the outside:
//! its commands, its configuration, its socket.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Comparison, Device, Error, Lab, Result, s3::BUCKET, tools};

/// How long a daemon that was asked to end may take: Litestream's last sync and more.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A device's files, and how edgerepl is started with them.
pub struct Site {
    /// The device whose key and certificate are used.
    pub device: Device,
    program: PathBuf,
    root: PathBuf,
    /// On tmpfs, as on a device.
    runtime: TempDir,
    values: BTreeMap<(String, String), String>,
    environment: Vec<(String, String)>,
}

impl Site {
    /// A site of `device` in `lab`, where `program` is edgerepl. Litestream is the newest, and restarted
    /// at each rotation.
    pub fn new(lab: &Lab, device: Device, program: impl Into<PathBuf>) -> Result<Self> {
        let root = lab.root().join("sites").join(&device.thing_name);
        fs::create_dir_all(&root).map_err(Error::doing(root.display()))?;
        let runtime = TempDir::with_prefix_in("edgerepl-", "/dev/shm")
            .map_err(Error::doing("a runtime directory on tmpfs"))?;
        let environment = device.env.clone();
        let mut site = Self {
            device,
            program: program.into(),
            root,
            runtime,
            values: BTreeMap::new(),
            environment,
        };
        let quoted = |path: &Path| format!("{:?}", path.display().to_string());
        for (section, key, value) in [
            ("identity", "certificate", quoted(&site.device.certificate)),
            (
                "identity",
                "private_key",
                format!("{:?}", site.device.private_key),
            ),
            (
                "credentials",
                "endpoint",
                format!("{:?}", lab.provider().endpoint()),
            ),
            (
                "credentials",
                "role_alias",
                format!("{:?}", lab.provider().role_alias()),
            ),
            ("credentials", "region", "\"us-east-1\"".to_owned()),
            ("credentials", "ca_file", quoted(lab.ca_file())),
            ("replication", "rotation", "\"restart\"".to_owned()),
            ("database", "path", quoted(&site.database())),
            // A proof each 30 s.
            ("replication", "rpo", "\"36s\"".to_owned()),
            ("heartbeat", "interval", "\"500ms\"".to_owned()),
        ] {
            site.set(section, key, value);
        }
        site.use_litestream(lab, "0.5.17")?;
        Ok(site)
    }

    /// Replicates with this version of Litestream: 0.5 with a control socket, 0.3 without one.
    pub fn use_litestream(&mut self, lab: &Lab, version: &str) -> Result<()> {
        let config = if version.starts_with("0.3.") {
            lab.litestream_config_0_3(&self.database())?
        } else {
            lab.litestream_config(&self.database(), &self.runtime_file("litestream.sock"))?
        };
        let program = tools::litestream(version)?;
        let command = format!("[{program:?}, \"replicate\", \"-config\", {config:?}]");
        self.set("replication", "command", command);
        Ok(())
    }

    /// Replicates by one file: edgerepl writes Litestream's configuration itself, and finds Litestream by
    /// the path of programs.
    pub fn use_one_file(&mut self, lab: &Lab) -> Result<()> {
        let file = self.root.join("litestream.yml");
        fs::remove_file(&file).map_err(Error::doing(file.display()))?;
        self.values
            .remove(&("replication".to_owned(), "command".to_owned()));
        self.set("replication", "bucket", format!("{BUCKET:?}"));
        self.set(
            "replication",
            "endpoint",
            format!("{:?}", lab.s3().endpoint()),
        );
        let program = tools::litestream("0.5.17")?;
        let folder = program.parent().unwrap_or(&program);
        self.set_env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        Ok(())
    }

    /// Has Litestream replicate these databases beside the first one, each to a prefix of its own.
    pub fn replicate_too<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<()> {
        let file = self.root.join("litestream.yml");
        let mut text = fs::read_to_string(&file).map_err(Error::doing(file.display()))?;
        let at = text
            .find("  - path:")
            .ok_or_else(|| Error::new(format!("{} names no database", file.display())))?;
        let entry = text[at..].to_owned();
        text.extend(names.into_iter().map(|name| entry.replace("app.db", name)));
        fs::write(&file, text).map_err(Error::doing(file.display()))
    }

    /// Adds a later layer of the configuration, a file of this name.
    pub fn add_layer(&self, name: &str, text: &str) -> Result<()> {
        let folder = PathBuf::from(format!("{}.d", self.config().display()));
        fs::create_dir_all(&folder).map_err(Error::doing(folder.display()))?;
        fs::write(folder.join(name), text).map_err(Error::doing(folder.display()))
    }

    /// Sets a key of the configuration to a value, written as TOML.
    pub fn set(&mut self, section: &str, key: &str, value: impl Into<String>) {
        self.values
            .insert((section.to_owned(), key.to_owned()), value.into());
    }

    /// Sets a variable in the daemon's environment.
    pub fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.environment.push((name.to_owned(), value.into()));
    }

    /// The database's path.
    pub fn database(&self) -> PathBuf {
        self.root.join("app.db")
    }

    /// The folder of the database and the configuration.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file in the runtime directory, which is on tmpfs.
    pub fn runtime_file(&self, name: &str) -> PathBuf {
        self.runtime.path().join(name)
    }

    /// The configuration's main file.
    pub fn config(&self) -> PathBuf {
        self.root.join("edgerepl.toml")
    }

    /// Writes the configuration as it is set now.
    pub fn write_config(&self) -> Result<()> {
        let mut text = String::new();
        let mut open = "";
        for ((section, key), value) in &self.values {
            if open != section {
                let _ = writeln!(text, "[{section}]");
                open = section;
            }
            let _ = writeln!(text, "{key} = {value}");
        }
        fs::write(self.config(), text).map_err(Error::doing(self.config().display()))
    }

    /// Writes the configuration and starts the daemon.
    pub fn start(&self) -> Result<Daemon> {
        self.write_config()?;
        let path = self.root.join("log");
        let log = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(Error::doing(path.display()))?;
        let second = log.try_clone().map_err(Error::doing(path.display()))?;
        let child = self
            .command(&["run"])
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(second)
            .spawn()
            .map_err(Error::doing(self.program.display()))?;
        Ok(Daemon {
            child,
            status: self.runtime_file("status.sock"),
            log: path,
        })
    }

    /// Runs another command of edgerepl to its end.
    pub fn run(&self, arguments: &[&str]) -> Result<Output> {
        self.write_config()?;
        self.command(arguments)
            .output()
            .map_err(Error::doing(self.program.display()))
    }

    /// A connection to the live database, as an application has one.
    pub fn connect(&self) -> Result<Connection> {
        let opened = Connection::open(self.database()).and_then(|connection| {
            connection.busy_timeout(Duration::from_secs(10))?;
            connection.pragma_update(None, "journal_mode", "wal")?;
            Ok(connection)
        });
        opened.map_err(Error::doing("the live database"))
    }

    /// Restores the replica aside and compares every row of every table with the live database.
    pub fn compare(&self, lab: &Lab) -> Result<Comparison> {
        lab.compare(&self.device.thing_name, &self.database())
    }

    /// Asks Litestream's control socket to replicate what there is; true once it says that it has.
    pub fn sync(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.runtime_file("litestream.sock"))?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            let path = self.database();
            let body = serde_json::json!({"path": path, "wait": true, "timeout": 4}).to_string();
            write!(
                stream,
                "POST /sync HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        ask().is_ok_and(|answer| {
            let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            body["txid"].is_u64() && body["txid"] == body["replicated_txid"]
        })
    }

    /// Another command of edgerepl, to be started; with the configuration as it was last written.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        // As bare as a unit's environment: what the machine sets for its own AWS clients stays out.
        command.env_clear();
        for name in ["PATH", "HOME", "TMPDIR"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command.args(arguments).arg("--config").arg(self.config());
        command.env("RUNTIME_DIRECTORY", self.runtime.path());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running edgerepl; killed when it is dropped.
pub struct Daemon {
    child: Child,
    status: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `status --json` would print; nothing where the daemon does not answer.
    pub fn status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(&self.status).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Waits until the status is as wanted; an error that shows the last one and the log where that
    /// takes longer than `limit`.
    pub fn wait_for(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status();
            if let Some(status) = status.as_ref().filter(|status| wanted(status)) {
                return Ok(status.clone());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() >= deadline {
                let status = status.unwrap_or_default();
                let log = self.log();
                return Err(Error::new(format!(
                    "no {what} within {limit:?} ({ended:?}); the status is {status:#}; the log:\n{log}"
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until Litestream is seen to replicate after so many rotations.
    pub fn wait_for_rotations(&mut self, rotations: u64, limit: Duration) -> Result<Value> {
        self.wait_for(&format!("rotation {rotations}"), limit, |status| {
            let replication = &status["replication"];
            replication["rotations"].as_u64() >= Some(rotations)
                && replication["activity"] == "replicating"
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Asks it to end and waits until it has.
    pub fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        self.wait_for_exit()
    }

    /// Waits for an end that somebody else brings about.
    pub fn wait_for_exit(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().map_err(Error::doing("edgerepl"))? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(Error::new(format!(
            "edgerepl has not ended; its log:\n{}",
            self.log()
        )))
    }

    /// Kills it as a crash would, at once.
    pub fn kill(mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.wait_for_exit()
    }

    /// All that it and Litestream have written to their log, those of earlier runs included.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
