//! Updates over the air: what a device with two slots installs, boots, keeps and refuses.

use std::time::Instant;

use xtask::image::File;
use xtask::image::slots::{Bundle, Root, Signer};

use super::evidence::{ensure, no_failed_units, rows, snapshots, took};
use super::{Bench, Failure, Figures, LONG};
use crate::qemu::machine::Power;
use crate::qemu::rig::{LIMIT, Rig, Running};
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
    settle(bench, &mut device)?;
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
    settle(bench, &mut device)?;
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
    settle(bench, &mut device)?;
    device.shut_down()?;
    let mut figures = vec![
        ("from power to the shell", took(shell)),
        ("from power to healthy and good", took(good)),
        ("installation", took(installed)),
        ("from reboot to the shell", took(up)),
        ("from reboot to healthy and good", took(updated)),
    ];
    figures.extend(replicas(bench, &rig)?);
    Ok(figures)
}

pub(super) fn refused_bundles(bench: &Bench) -> Result<Figures, Failure> {
    let slots = bench.slots()?;
    let mut rig = bench.rig("refused-bundles", LONG)?;
    let stranger = Bundle {
        signer: Signer::Stranger,
        ..slots.update(Root::version(2))
    };
    let elsewhere = Bundle {
        compatible: "another-machine".to_owned(),
        ..slots.update(Root::version(2))
    };
    let older = slots.update(Root::version(0));
    let bundles = [
        ("stranger", stranger),
        ("elsewhere", elsewhere),
        ("older", older),
    ];
    rig.provide(slots, &bundles)?;
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device.wait_until_good()?;
    let before = device.environment()?;
    let mut figures = Figures::new();
    for (name, reason) in [
        ("stranger", "signature verification failed"),
        ("elsewhere", "Compatible mismatch"),
        ("older", "version 0 is older than 1"),
    ] {
        let (code, said) = device.install(name)?;
        ensure(code != 0, || format!("{name} was installed: {said}"))?;
        let log = device.shell.run("journalctl --no-pager --unit=rauc")?;
        let line = [said, log]
            .join("\n")
            .lines()
            .find(|line| line.contains(reason))
            .map(str::to_owned)
            .ok_or_else(|| format!("nothing says why {name} was refused"))?;
        let begin = line.find(reason).unwrap_or_default();
        figures.push((name, line[begin..].to_owned()));
        let after = device.environment()?;
        ensure(after == before, || format!("{name}: {after:?}"))?;
    }
    device.wait_until_healthy()?;
    device.shut_down()?;
    figures.extend([rows(&rig)?, snapshots(&rig, 1)?]);
    Ok(figures)
}

pub(super) fn torn_environment(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("torn-environment", LONG)?;
    let mut device = rig.first_boot()?;
    device.wait_until_good()?;
    for copy in [0, 1] {
        // What it is not by itself, and another write, so that both copies say so.
        device
            .shell
            .run("fw_setenv BOOT_ORDER 'B A' && fw_setenv BOOT_A_LEFT 1")?;
        device.tear_environment(copy)?;
        kept(&mut device, "B A")?;
        device.reboot_into(B)?;
        kept(&mut device, "B A")?;
        device.wait_until_good()?;
    }
    // Both at once is nothing that a power cut does. The device comes up all the same.
    device.tear_environment(0)?;
    device.tear_environment(1)?;
    device.reboot_into(A)?;
    kept(&mut device, "A B")?;
    device.wait_until_healthy()?;
    let boots = format!("{} of A, {} of B", device.boots_of(A), device.boots_of(B));
    ensure(boots == "2 of A, 2 of B", || boots.clone())?;
    device.shut_down()?;
    Ok(vec![("boots", boots), rows(&rig)?, snapshots(&rig, 1)?])
}

/// The order of the slots, as Linux reads it.
fn kept(device: &mut Running, order: &str) -> Result<(), Failure> {
    let environment = device.environment()?;
    let found = environment.get("BOOT_ORDER").map(String::as_str);
    ensure(found == Some(order), || format!("{environment:?}"))
}

pub(super) fn kernel_panic(bench: &Bench) -> Result<Figures, Failure> {
    let slots = bench.slots()?;
    let mut rig = bench.rig("kernel-panic", LONG)?;
    // A unit of the image's own, so that nothing has to be enabled.
    let panics = File::text(
        "usr/lib/systemd/system/systemd-networkd.service.d/panic.conf",
        "[Service]\nExecStartPre=+sh -c 'echo c >/proc/sysrq-trigger'\n",
    );
    rig.provide(
        slots,
        &[("panics", slots.update(Root::version(2).with(panics)))],
    )?;
    let mut device = rig.first_boot()?;
    settle(bench, &mut device)?;
    let (code, said) = device.install("panics")?;
    ensure(code == 0, || format!("RAUC ends with {code}: {said}"))?;
    let before = device.current_boot()?;
    let begun = Instant::now();
    device.shell.send("systemctl --no-block reboot")?;
    device.wait_for_slot(A, &before)?;
    let back = begun.elapsed();
    settle(bench, &mut device)?;
    let healthy = begun.elapsed();
    let tries = device.boots_of(B);
    ensure(tries == 3, || format!("B was tried {tries} times"))?;
    device.shut_down()?;
    let mut figures = vec![
        ("attempts", tries.to_string()),
        ("from reboot to the old slot's shell", took(back)),
        ("from reboot to healthy and good", took(healthy)),
    ];
    figures.extend(replicas(bench, &rig)?);
    Ok(figures)
}

/// Waits until the device is healthy, and its slot good. Without Litestream it is never healthy, so that its
/// slot stays on trial: there somebody else calls it good.
fn settle(bench: &Bench, device: &mut Running) -> Result<(), Failure> {
    if bench.has_litestream() {
        device.wait_until_healthy()?;
        return device.wait_until_good();
    }
    device.wait_for("credentials", LIMIT, |status| {
        status["credentials"]["valid"] == true
    })?;
    let state = device.property("rauc-mark-good.service", "ActiveState")?;
    ensure(state != "active", || {
        "it was called good without a proof".to_owned()
    })?;
    device.shell.run("rauc status mark-good").map(drop)
}

/// What the replicas hold, where there are any.
fn replicas(bench: &Bench, rig: &Rig<'_>) -> Result<Figures, Failure> {
    match bench.has_litestream() {
        true => Ok(vec![rows(rig)?, snapshots(rig, 1)?]),
        false => Ok(Figures::new()),
    }
}
