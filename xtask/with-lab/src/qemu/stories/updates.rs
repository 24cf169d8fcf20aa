//! Updates over the air: what a device with two slots installs, boots, keeps and refuses.

use std::time::Instant;

use xtask::image::slots::Root;

use super::evidence::{ensure, no_failed_units, rows, snapshots, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::machine::Power;
use crate::qemu::slots::{A, B};

pub(super) fn good_update(bench: &Bench) -> Result<Figures, Failure> {
    let slots = bench.slots()?;
    let mut rig = bench.rig("good-update", LONG)?;
    rig.provide(slots, &[("next", slots.update(Root::version(2)))])?;
    let mut device = rig.first_boot()?;
    let shell = device.machine.age();
    ensure(device.current_boot()?.slot == A, || {
        "it began in B".to_owned()
    })?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let good = device.machine.age();

    let begun = Instant::now();
    let (code, said) = device.install("next")?;
    let installed = begun.elapsed();
    ensure(code == 0, || format!("RAUC ends with {code}: {said}"))?;
    let environment = device.environment()?;
    ensure(environment["BOOT_ORDER"] == "B A", || {
        format!("{environment:?}")
    })?;

    let begun = Instant::now();
    device.reboot_into(B)?;
    let up = begun.elapsed();
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let updated = begun.elapsed();
    let version = device.shell.run(". /etc/os-release; echo $IMAGE_VERSION")?;
    ensure(version.trim() == "2", || {
        format!("it runs version {version}")
    })?;
    let status = device.shell.run("rauc status --output-format=shell")?;
    ensure(status.contains("RAUC_SYSTEM_BOOTED_BOOTNAME='B'"), || {
        status.clone()
    })?;
    let environment = device.environment()?;
    ensure(environment["BOOT_B_LEFT"] == "3", || {
        format!("{environment:?}")
    })?;
    no_failed_units(&mut device)?;
    device.shut_down()?;

    // It stays there without the memory of QEMU's process.
    let mut device = rig.boot(&Power::default())?;
    ensure(device.current_boot()?.slot == B, || {
        "it went back to A".to_owned()
    })?;
    device.wait_until_healthy()?;
    device.shut_down()?;
    Ok(vec![
        ("from power to the shell", took(shell)),
        ("from power to healthy and good", took(good)),
        ("installation", took(installed)),
        ("from reboot to the shell", took(up)),
        ("from reboot to healthy and good", took(updated)),
        rows(&rig)?,
        snapshots(&rig, 1)?,
    ])
}
