//! Updates at a bad moment: in the midst of an installation, of a first boot, of a rotation.

use std::thread;
use std::time::{Duration, Instant};

use xtask::image::slots::Root;

use super::evidence::{Chance, await_grant, ensure, rows, seed, snapshots, took};
use super::trials::updated;
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::machine::Power;
use crate::qemu::rig::LIMIT;
use crate::qemu::slots::{A, B};

/// Power cuts while RAUC writes the other slot, and an installation after them.
pub(super) fn cut_install(bench: &Bench) -> Result<Figures, Failure> {
    const CUTS: u32 = 5;
    /// Milliseconds: an idle machine that emulates takes 6 s to write the slot.
    const WRITING: u64 = 3_000;
    let slots = bench.slots()?;
    let mut chance = Chance(seed()? | 1);
    let mut rig = bench.rig("cut-install", LONG)?;
    rig.provide(slots, &[("next", slots.update(Root::version(2)))])?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    let mut moments = Vec::new();
    for cut in 1..=CUTS {
        // Else the cuts would use up the attempts of the slot that runs.
        device.wait_until_good()?;
        device.begin_installation("next")?;
        let moment = Duration::from_millis(chance.below(WRITING));
        thread::sleep(moment);
        // RAUC has taken the slot out of the order before it began, and puts it first at the end.
        let environment = device.environment()?;
        let is_open = environment["BOOT_B_LEFT"] == "0";
        ensure(is_open, || format!("cut {cut}: {environment:?}"))?;
        println!("  cut {cut}: {} after RAUC begins to write", took(moment));
        moments.push(took(moment));
        device.machine.cut_power()?;
        device = rig.boot(&Power::default())?;
        let slot = device.current_boot()?.slot;
        ensure(slot == A, || format!("cut {cut}: it came up in {slot}"))?;
        // What is half written is not to be booted.
        let environment = device.environment()?;
        let left = &environment["BOOT_B_LEFT"];
        ensure(left == "0", || format!("cut {cut}: {environment:?}"))?;
    }
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let begun = Instant::now();
    let (code, said) = device.install("next")?;
    ensure(code == 0, || format!("RAUC ends with {code}: {said}"))?;
    let installed = begun.elapsed();
    device.reboot_into(B)?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    device.shut_down()?;
    Ok(vec![
        ("cuts, after RAUC begins to write", moments.join(", ")),
        ("the installation after them", took(installed)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}

/// Power cuts while the new slot boots for the first time: it has two more attempts.
pub(super) fn cut_first_boot(bench: &Bench) -> Result<Figures, Failure> {
    let mut chance = Chance(seed()? | 1);
    let mut rig = bench.rig("cut-first-boot", LONG)?;
    let mut device = updated(bench, &mut rig, Root::version(2))?;
    device.shell.send("systemctl --no-block reboot")?;
    let mut machine = device.machine;
    let mut figures = Figures::new();
    for (cut, what) in [(1, "the first cut"), (2, "the second")] {
        machine.wait_for_attempt(B, cut)?;
        let moment = Duration::from_millis(chance.below(9000));
        thread::sleep(moment);
        machine.cut_power()?;
        figures.push((what, format!("{} after U-Boot's choice", took(moment))));
        machine = rig.switch_on(&Power::default())?;
    }
    let begun = Instant::now();
    let mut device = rig.enter(machine, &Power::default())?;
    let slot = device.current_boot()?.slot;
    ensure(slot == B, || format!("it came up in {slot}"))?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    figures.push(("from power to healthy and good", took(begun.elapsed())));
    let environment = device.environment()?;
    let left = &environment["BOOT_B_LEFT"];
    ensure(left == "3", || format!("{environment:?}"))?;
    device.shut_down()?;
    figures.extend([rows(&rig)?, snapshots(&rig, 1)?]);
    Ok(figures)
}

/// A reboot into the new slot in the midst of a hand-over of credentials.
pub(super) fn rotation(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("update-in-rotation", LONG)?;
    let mut device = updated(bench, &mut rig, Root::version(2))?;
    let granted = rig.lab.provider().issued().len();
    device.shell.run("systemctl reload edgerepl.service")?;
    await_grant(&rig, granted)?;
    let begun = Instant::now();
    device.reboot_into(B)?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let good = begun.elapsed();
    // And the next one is as each.
    device.shell.run("systemctl reload edgerepl.service")?;
    device.wait_for("a rotation", LIMIT, |status| {
        status["replication"]["rotations"].as_u64() >= Some(1)
    })?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        ("from the grant to healthy and good", took(good)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}
