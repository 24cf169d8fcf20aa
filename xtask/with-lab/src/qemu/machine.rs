//! One emulated machine: QEMU's process, its disks, its network cable, its power.
//!
//! Owns what somebody at the bench could do with their hands. Knows nothing of what runs inside.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use xtask::image::{Boot, Door, Image};
use xtask::target::{self, Target};

use super::Failure;

/// QEMU is up within this, or not at all.
const START_LIMIT: Duration = Duration::from_secs(20);

/// For the kernel of an image without an initramfs of ours: it has to be told which disk is the root.
const ROOT: &str = "root=/dev/vda ro rootwait";

/// How a machine is switched on.
#[derive(Clone, Debug)]
pub(crate) struct Power {
    /// Whether the network cable is plugged in.
    pub(crate) network: bool,
    /// What the clock shows that is buffered by a battery: `utc`, or a date without a zone.
    pub(crate) clock: &'static str,
    /// What the kernel is told, beside what every machine's is.
    pub(crate) kernel: &'static str,
}

impl Default for Power {
    fn default() -> Self {
        Self {
            network: true,
            clock: "utc",
            kernel: "",
        }
    }
}

/// A disk of a machine.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    /// Its serial number.
    pub(crate) name: &'static str,
    pub(crate) file: PathBuf,
    pub(crate) is_writable: bool,
}

/// A machine that is on. Dropping it pulls the plug.
pub(crate) struct Machine {
    process: Child,
    monitor: Monitor,
    serial: PathBuf,
    shell: PathBuf,
    since: Instant,
}

impl Machine {
    /// Switches it on. Its wires and its serial log go to `folder`; the log is added to. A boot loader
    /// finds its disk where it is the first.
    pub(crate) fn start(
        image: &Image,
        disks: &[Disk],
        folder: &Path,
        power: &Power,
    ) -> Result<Self, Failure> {
        let (monitor, shell) = (folder.join("monitor"), folder.join("shell"));
        let (serial, complaints) = (folder.join("serial.log"), folder.join("qemu.log"));
        for stale in [&monitor, &shell] {
            let _ = fs::remove_file(stale);
        }
        let mut command = board(image.arch);
        command
            .args(["-smp", "2", "-m", "512", "-display", "none", "-S"])
            .args(["-rtc", &format!("base={}", power.clock)]);
        match &image.boot {
            Boot::Kernel { kernel, initrd, .. } => {
                command.arg("-no-reboot").arg("-kernel").arg(kernel);
                if let Some(initrd) = initrd {
                    command.arg("-initrd").arg(initrd);
                }
                let root = match image.door {
                    Door::Port => "",
                    Door::Console => ROOT,
                };
                let told = power.kernel;
                command.arg("-append").arg(format!(
                    "console=ttyAMA0 quiet loglevel=4 panic=1 {root} {told}"
                ));
            }
            Boot::Loader { .. } if !power.kernel.is_empty() => {
                let told = power.kernel;
                return Err(format!("the boot loader tells the kernel no {told:?}").into());
            }
            Boot::Loader { loader, .. } => {
                command.arg("-bios").arg(loader);
            }
        }
        for Disk {
            name,
            file,
            is_writable,
        } in disks
        {
            let file = file.display();
            let access = if *is_writable { "" } else { ",readonly=on" };
            command.args([
                "-drive",
                &format!("if=none,id={name},file={file},format=raw{access}"),
                "-device",
                &format!("virtio-blk-pci,drive={name},serial={name}"),
            ]);
        }
        let socket = |name: &str, path: &Path| {
            let path = path.display();
            format!("socket,id={name},path={path},server=on,wait=off")
        };
        command
            .args(["-netdev", "user,id=cable", "-device"])
            .arg("virtio-net-pci,netdev=cable,id=network,romfile=")
            .args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
        match image.door {
            Door::Port => command
                .args(["-chardev", &socket("shell", &shell), "-device"])
                .arg("virtserialport,chardev=shell,name=edgerepl.shell")
                .args([
                    "-chardev",
                    &format!("file,id=console,path={},append=on", serial.display()),
                ])
                .args(["-serial", "chardev:console"]),
            Door::Console => {
                let log = format!(",logfile={},logappend=on", serial.display());
                command
                    .args(["-chardev", &(socket("shell", &shell) + &log)])
                    .args(["-serial", "chardev:shell"])
            }
        };
        command
            .args([
                "-qmp",
                &format!("unix:{},server=on,wait=off", monitor.display()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&complaints)?);
        let mut process = command
            .spawn()
            .map_err(|e| format!("{} can't be run: {e}", program(image.arch)))?;
        let monitor = Monitor::connect(&monitor).map_err(|e| {
            let _ = process.kill();
            let _ = process.wait();
            let said = fs::read_to_string(&complaints).unwrap_or_default();
            format!("QEMU does not start: {e}; it says: {}", said.trim())
        })?;
        let mut machine = Self {
            process,
            monitor,
            serial,
            shell,
            since: Instant::now(),
        };
        machine.plug(power.network)?;
        machine.monitor.execute("cont", json!({}))?;
        Ok(machine)
    }

    /// Plugs the network cable in, or pulls it out.
    pub(crate) fn plug(&mut self, connected: bool) -> Result<(), Failure> {
        let arguments = json!({"name": "network", "up": connected});
        self.monitor.execute("set_link", arguments)
    }

    /// Pulls the plug: nothing inside is told.
    pub(crate) fn cut_power(mut self) -> Result<(), Failure> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Waits until it switches itself off, or resets.
    pub(crate) fn wait_until_off(mut self, limit: Duration) -> Result<ExitStatus, Failure> {
        let begun = Instant::now();
        while begun.elapsed() < limit {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(50));
        }
        Err(format!(
            "the machine is still on after {limit:?}: {}",
            self.last_words()
        )
        .into())
    }

    /// Whether it is on.
    pub(crate) fn is_on(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// The socket that its root shell listens on.
    pub(crate) fn shell(&self) -> &Path {
        &self.shell
    }

    /// How long it has been on.
    pub(crate) fn age(&self) -> Duration {
        self.since.elapsed()
    }

    /// What it wrote to its serial console, also when it was on before.
    pub(crate) fn console(&self) -> String {
        let text = fs::read(&self.serial).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of that.
    pub(crate) fn last_words(&self) -> String {
        let text = fs::read(&self.serial).unwrap_or_default();
        let end = &text[text.len().saturating_sub(4000)..];
        format!("its console says:\n{}", String::from_utf8_lossy(end))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(target: &Target) -> &'static str {
    if target == &target::AARCH64 {
        "qemu-system-aarch64"
    } else {
        "qemu-system-arm"
    }
}

fn board(target: &Target) -> Command {
    let mut command = Command::new(program(target));
    if target == &target::AARCH64 {
        // Pointer authentication as the architecture has it costs more time than all the rest.
        command
            .args(["-M", "virt,gic-version=2", "-cpu", "max,pauth-impdef=on"])
            .args(["-device", "i6300esb", "-action", "watchdog=reset"]);
    } else {
        command.args(["-M", "virt,highmem=off", "-cpu", "cortex-a15"]);
    }
    command
}

/// QEMU's own console (QMP).
struct Monitor {
    answers: BufReader<UnixStream>,
    orders: UnixStream,
}

impl Monitor {
    fn connect(path: &Path) -> Result<Self, Failure> {
        let begun = Instant::now();
        let orders = loop {
            match UnixStream::connect(path) {
                Ok(stream) => break stream,
                Err(e) if begun.elapsed() > START_LIMIT => return Err(e.into()),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        orders.set_read_timeout(Some(START_LIMIT))?;
        let mut monitor = Self {
            answers: BufReader::new(orders.try_clone()?),
            orders,
        };
        monitor.execute("qmp_capabilities", json!({}))?;
        Ok(monitor)
    }

    fn execute(&mut self, order: &str, arguments: Value) -> Result<(), Failure> {
        let text = json!({"execute": order, "arguments": arguments}).to_string();
        writeln!(self.orders, "{text}")?;
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line)? == 0 {
                return Err(format!("QEMU ended before it answered to {order}").into());
            }
            let answer: Value = serde_json::from_str(&line)?;
            if answer.get("return").is_some() {
                return Ok(());
            }
            if let Some(error) = answer.get("error") {
                return Err(format!("QEMU refuses {order}: {error}").into());
            }
        }
    }
}
