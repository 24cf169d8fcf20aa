//! Trial boots: what the new slot can't do, and what is not its fault.
//!
//! Each begins with a slot that is good, and an update that RAUC takes. The boot loader gives a slot three
//! attempts.

use std::thread;
use std::time::{Duration, Instant};

use xtask::image::File;
use xtask::image::slots::{Root, TRIAL};

use super::evidence::{ensure, rows, snapshots, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::rig::{Rig, Running};
use crate::qemu::slots::{A, B};

/// A new image whose daemon dies as it starts; all else of it works.
pub(super) fn crash(bench: &Bench) -> Result<Figures, Failure> {
    let dies = "[Service]\nExecStart=\nExecStart=/bin/sh -c 'kill -ABRT $$$$'\n";
    let place = "usr/lib/systemd/system/edgerepl.service.d/zz-crash.conf";
    let rig = bench.rig("crash", LONG)?;
    let bad = Root::version(2).with(File::text(place, dies));
    comes_home(bench, rig, bad, TRIAL)
}

/// A new image whose program can't run at all, so that it can't judge itself either.
pub(super) fn broken_program(bench: &Bench) -> Result<Figures, Failure> {
    let dies = File::program("usr/bin/edgerepl", "#!/bin/sh\nkill -ABRT $$\n");
    let rig = bench.rig("broken-program", LONG)?;
    // Ten times, with pauses of 4 s.
    let patience = Duration::from_secs(36);
    comes_home(bench, rig, Root::version(2).with(dies), patience)
}

/// A new image whose own configuration names an endpoint that nobody answers at.
pub(super) fn wrong_endpoint(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("wrong-endpoint", LONG)?;
    let right = rig.lab.provider().endpoint();
    let layer = |endpoint: &str| {
        let text = format!("credentials.endpoint = {endpoint:?}\n");
        File::text("usr/lib/edgerepl/10-fleet.toml", text)
    };
    rig.leave_to_image("credentials.endpoint");
    rig.put_into_slot_a(bench.slots()?, &Root::version(1).with(layer(&right)))?;
    let wrong = layer("credentials.edgerepl.test:443");
    comes_home(bench, rig, Root::version(2).with(wrong), TRIAL)
}

/// Installs a bad image, and waits until the device is back by itself. Each attempt has so much time at the least.
fn comes_home(
    bench: &Bench,
    mut rig: Rig<'_>,
    bad: Root,
    patience: Duration,
) -> Result<Figures, Failure> {
    let mut device = updated(bench, &mut rig, bad)?;
    let before = device.current_boot()?;
    let begun = Instant::now();
    device.shell.send("systemctl --no-block reboot")?;
    // Each attempt has a boot's time and the trial's.
    device.wait_for_slot_within(A, &before, Duration::from_secs(1200))?;
    let back = begun.elapsed();
    let tries = device.boots_of(B);
    ensure(tries == 3, || format!("B was tried {tries} times"))?;
    ensure(back >= 3 * patience, || {
        format!("B was given up at once: {}", took(back))
    })?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let healthy = begun.elapsed();
    let environment = device.environment()?;
    let left = (&*environment["BOOT_A_LEFT"], &*environment["BOOT_B_LEFT"]);
    ensure(left == ("3", "0"), || format!("{environment:?}"))?;
    device.shut_down()?;
    Ok(vec![
        ("an attempt's time", took(patience)),
        ("attempts", tries.to_string()),
        ("from reboot to the old slot's shell", took(back)),
        ("from reboot to healthy and good", took(healthy)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}

/// A good image that boots where no network is, and for longer than a trial takes.
pub(super) fn no_network(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("no-network", LONG)?;
    let mut device = updated(bench, &mut rig, Root::version(2))?;
    device.machine.plug(false)?;
    device.reboot_into(B)?;
    let begun = Instant::now();
    thread::sleep(2 * TRIAL);
    let said = device.trial()?;
    ensure(said.contains("can't be reached now"), || said.clone())?;
    ensure(device.boots_of(B) == 1, || "it was rebooted".to_owned())?;
    let state = device.property("rauc-mark-good.service", "ActiveState")?;
    ensure(state != "active", || {
        "it was called good without a proof".to_owned()
    })?;
    let alone = begun.elapsed();
    let begun = Instant::now();
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let good = begun.elapsed();

    // What was good is let through without a network, and never reboots.
    device.machine.plug(false)?;
    device.reboot_into(B)?;
    device.wait_until_good()?;
    ensure(device.boots_of(B) == 2, || "it was rebooted".to_owned())?;
    device.machine.plug(true)?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        ("a trial's time", took(TRIAL)),
        ("without a network", took(alone)),
        ("from the network to healthy and good", took(good)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}

/// A device that is good in slot A, with an update in slot B that was not booted yet.
pub(super) fn updated(bench: &Bench, rig: &mut Rig<'_>, root: Root) -> Result<Running, Failure> {
    let slots = bench.slots()?;
    rig.provide(slots, &[("next", slots.update(root))])?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let (code, said) = device.install("next")?;
    ensure(code == 0, || format!("RAUC ends with {code}: {said}"))?;
    Ok(device)
}
