//! A device with two slots: what it does beside what every device does.
//!
//! Owns how it is asked for an installation and a reboot, and what it says of its slots. Which slot should
//! run is for the stories to say. The machine stays on through a reboot: the boot loader is in it.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use xtask::image::slots::{Bundle, Root, Slots};

use super::Failure;
use super::machine::Machine;
use super::rig::{LIMIT, Rig, Running};

/// The label and the serial number of the disk with bundles.
const BUNDLES: &str = "bundles";

/// An emulated machine writes a slot, and reads it back, within this.
const INSTALL_LIMIT: Duration = Duration::from_secs(600);

/// One of the slots, by the name that RAUC and the boot loader have for it.
pub(crate) type Slot = &'static str;
pub(crate) const A: Slot = "A";
pub(crate) const B: Slot = "B";

impl Rig<'_> {
    /// Has the device find these bundles, each by its name, from the next time on that it is switched on.
    pub(crate) fn provide(
        &mut self,
        slots: &Slots,
        bundles: &[(&str, Bundle)],
    ) -> Result<(), Failure> {
        let disk = self.folder().join("bundles.ext4");
        slots.write_all(bundles, BUNDLES, &disk)?;
        self.plug_in(BUNDLES, &disk);
        Ok(())
    }

    /// Gives a device that is off another root in slot A.
    pub(crate) fn put_into_slot_a(&self, slots: &Slots, root: &Root) -> Result<(), Failure> {
        slots.put_into_slot_a(root, &self.slots())
    }
}

impl Machine {
    /// How often the boot loader has booted this slot since the device was made.
    pub(crate) fn boots_of(&self, slot: Slot) -> usize {
        let words = format!("slots: booting {slot}");
        self.console().matches(&words).count()
    }

    /// Waits until the boot loader has chosen a slot so many times.
    pub(crate) fn wait_for_attempt(&self, slot: Slot, attempt: usize) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.boots_of(slot) < attempt {
            if begun.elapsed() > LIMIT {
                let words = self.last_words();
                return Err(format!("slot {slot} is not tried within {LIMIT:?}; {words}").into());
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// A boot, and the slot that it came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Boot {
    pub(crate) slot: String,
    id: String,
}

impl Boot {
    const QUESTION: &str = "cat /proc/sys/kernel/random/boot_id /proc/cmdline";

    fn read(answer: &str) -> Option<Self> {
        let words: Vec<&str> = answer.split_whitespace().collect();
        let slot = words
            .iter()
            .find_map(|word| word.strip_prefix("rauc.slot="));
        Some(Self {
            slot: slot?.to_owned(),
            id: words.first()?.to_string(),
        })
    }
}

impl Running {
    /// The boot that the device is in.
    pub(crate) fn current_boot(&mut self) -> Result<Boot, Failure> {
        let answer = self.shell.run(Boot::QUESTION)?;
        Boot::read(&answer).ok_or_else(|| format!("it runs from no slot: {answer}").into())
    }

    /// What the boot loader remembers: `BOOT_ORDER`, `BOOT_A_LEFT`, `BOOT_B_LEFT`.
    pub(crate) fn environment(&mut self) -> Result<BTreeMap<String, String>, Failure> {
        let lines = self.shell.run("fw_printenv")?;
        let pairs = lines.lines().filter_map(|line| line.split_once('='));
        Ok(pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect())
    }

    /// How often the boot loader has booted this slot since the device was made.
    pub(crate) fn boots_of(&self, slot: Slot) -> usize {
        self.machine.boots_of(slot)
    }

    /// Writes noise over the beginning of one of the environment's two copies, as a power cut in the midst
    /// of a write may leave it.
    pub(crate) fn tear_environment(&mut self, copy: u32) -> Result<(), Failure> {
        let sector = copy * 0x80000 / 512;
        let command = format!(
            "dd if=/dev/urandom of=/dev/disk/by-partlabel/env bs=512 seek={sector} count=3 \
             conv=notrunc,fsync status=none"
        );
        self.shell.run(&command).map(drop)
    }

    /// Installs a bundle into the slot that does not run. Answers with RAUC's exit code, and what it said.
    pub(crate) fn install(&mut self, name: &str) -> Result<(i32, String), Failure> {
        let command = install(name);
        self.shell.try_run_within(&command, INSTALL_LIMIT)
    }

    /// The same with a bundle in a file.
    pub(crate) fn install_file(&mut self, path: &str) -> Result<(i32, String), Failure> {
        let command = format!("rauc install {path}");
        self.shell.try_run_within(&command, INSTALL_LIMIT)
    }

    /// Begins such an installation, and answers as soon as RAUC writes to the slot.
    pub(crate) fn begin_installation(&mut self, name: &str) -> Result<(), Failure> {
        let command = install(name);
        self.shell
            .run(&format!("{{ {command}; }} >/dev/null 2>&1 &"))?;
        let begun = Instant::now();
        let is_writing = "journalctl --no-pager --unit=rauc | grep -q 'writing data to device'";
        while self.shell.try_run(is_writing)?.0 != 0 {
            if begun.elapsed() > LIMIT {
                return Err(format!("RAUC writes to no slot within {LIMIT:?}").into());
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// What the trial of the slot has said so far.
    pub(crate) fn trial(&mut self) -> Result<String, Failure> {
        self.shell
            .run("journalctl --no-pager --output=cat --unit=edgerepl-boot-check.service")
    }

    /// Reboots in order, and waits until the device is up in this slot.
    pub(crate) fn reboot_into(&mut self, slot: Slot) -> Result<(), Failure> {
        let before = self.current_boot()?;
        self.shell.send("systemctl --no-block reboot")?;
        self.wait_for_slot(slot, &before).map(drop)
    }

    /// Waits until the device is up in this slot, after however many boots since that one.
    pub(crate) fn wait_for_slot(&mut self, slot: Slot, since: &Boot) -> Result<Boot, Failure> {
        self.wait_for_slot_within(slot, since, LIMIT)
    }

    /// The same, where that may take longer.
    pub(crate) fn wait_for_slot_within(
        &mut self,
        slot: Slot,
        since: &Boot,
        limit: Duration,
    ) -> Result<Boot, Failure> {
        let begun = Instant::now();
        while self.machine.is_on() && begun.elapsed() < limit {
            let answer = self.shell.ask(Boot::QUESTION)?.unwrap_or_default();
            if let Some(boot) = Boot::read(&answer)
                && boot.id != since.id
                && boot.slot == slot
            {
                return Ok(boot);
            }
            thread::sleep(Duration::from_millis(100));
        }
        let words = self.machine.last_words();
        Err(format!("slot {slot} has not come up within {limit:?}; {words}").into())
    }

    /// Waits until RAUC is told that the slot that runs is good.
    pub(crate) fn wait_until_good(&mut self) -> Result<(), Failure> {
        let begun = Instant::now();
        while self.property("rauc-mark-good.service", "ActiveState")? != "active" {
            if begun.elapsed() > LIMIT {
                let log = self.shell.run(
                    "systemctl list-jobs; \
                     journalctl --no-pager --unit=rauc-mark-good --unit=rauc --unit=boot-complete.target",
                )?;
                return Err(format!("the slot is not good within {LIMIT:?}:\n{log}").into());
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok(())
    }
}

/// What installs a bundle.
fn install(name: &str) -> String {
    format!(
        "mkdir -p /run/{BUNDLES} && {{ mountpoint -q /run/{BUNDLES} || \
         mount -o ro LABEL={BUNDLES} /run/{BUNDLES}; }} && rauc install /run/{BUNDLES}/{name}.raucb"
    )
}
