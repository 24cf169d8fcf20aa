//! The key in a secure element: Microchip's own module, unmodified, on a bus of the device's kernel.

use std::time::Instant;

use edgerepl_lab::{ChipFaults, UsbI2cAdapter};
use serde_json::Value;

use super::evidence::{ensure, no_failed_units, rows, same_daemon, took};
use super::{Bench, Failure, Figures, SHORT};
use crate::qemu::rig::{LAB_ADDRESS, LIMIT, Running};

/// The bus's number in the slot file, and its device once the adapter is there.
const BUS: &str = "/dev/i2c-0";

pub(super) fn secure_element(bench: &Bench) -> Result<Figures, Failure> {
    let (rig, bus) = bench.rig_with_chip("secure-element", SHORT)?;
    let adapter = rig.lab.usb_adapter(&bus)?;
    let mut device = rig.first_boot()?;
    // No bus, no right to one; edgerepl is up, and says what it misses.
    device.wait_for("a failure", LIMIT, |status| key_failures(status) >= 1)?;

    // As the drop-in's own text says.
    device.shell.run(
        "mkdir -p /run/systemd/system/edgerepl.service.d && \
         sed 's|89:1 |89:0 |' /usr/share/edgerepl/drop-ins/i2c.conf \
         >/run/systemd/system/edgerepl.service.d/i2c.conf && systemctl daemon-reload && \
         systemctl restart edgerepl.service && modprobe -a vhci-hcd i2c-dev",
    )?;
    device.wait_for("a failure", LIMIT, |status| key_failures(status) >= 1)?;
    let begun = Instant::now();
    plug_in(&mut device, &adapter)?;
    let status = granted(&mut device, 1)?;
    let mut figures = vec![("credentials after the bus came", took(begun.elapsed()))];
    let daemon = status["pid"].clone();
    let (mode, _) = device.owner(BUS)?;
    ensure(mode == "crw-rw----", || format!("{BUS} has {mode}"))?;

    // Who looks by hand does it as edgerepl: root's lock would keep edgerepl out.
    let user = "setpriv --reuid=edgerepl --regid=edgerepl --groups=i2c --inh-caps=-all";
    let report = device
        .shell
        .try_run(&format!("{user} edgerepl check --json 2>/dev/null"))?;
    let report: Value = serde_json::from_str(&report.1)?;
    let checks = report["checks"].as_array().cloned().unwrap_or_default();
    for name in ["token", "slot", "bus", "shared_memory", "key"] {
        let check = checks.iter().find(|check| check["name"] == name);
        ensure(check.is_some_and(|c| c["outcome"] == "pass"), || {
            format!("{name}: {report:#}")
        })?;
    }
    let request = device.shell.run(&format!("{user} edgerepl csr"))?;
    ensure(request.contains("BEGIN CERTIFICATE REQUEST"), || {
        request.clone()
    })?;

    // Six renewals on a bus that loses every 29th command.
    let (before, counts) = (device.status()?, bus.counts());
    bus.order(ChipFaults {
        nack_every: Some(29),
        ..ChipFaults::default()
    });
    let renewals = 6;
    let after = granted(&mut device, number(&before) + renewals)?;
    bus.order(ChipFaults::default());
    let spent = bus.counts();
    ensure(spent.faults > counts.faults, || {
        format!("the bus lost nothing: {spent:?}")
    })?;
    figures.push((
        "signatures, commands a renewal",
        format!(
            "{:.1}, {:.1}",
            f64::from(spent.signatures - counts.signatures) / renewals as f64,
            f64::from(spent.commands - counts.commands) / renewals as f64,
        ),
    ));

    // The bus goes away with the chip, and comes back.
    let failed = key_failures(&after);
    adapter.plug(false)?;
    device.wait_for("a failure", LIMIT, |status| key_failures(status) > failed)?;
    let absent = device.status()?;
    let begun = Instant::now();
    plug_in(&mut device, &adapter)?;
    granted(&mut device, number(&absent) + 1)?;
    figures.push(("credentials after it came back", took(begun.elapsed())));
    let last = device.status()?;
    same_daemon(&last, &daemon)?;
    no_failed_units(&mut device)?;
    if bench.has_litestream() {
        device.wait_until_healthy()?;
        device.shut_down()?;
        figures.push(rows(&rig)?);
    } else {
        device.shut_down()?;
    }
    Ok(figures)
}

/// Plugs the adapter in, and waits until the kernel has made a bus of it.
fn plug_in(device: &mut Running, adapter: &UsbI2cAdapter) -> Result<(), Failure> {
    adapter.plug(true)?;
    device.shell.run(&adapter.attach_command(LAB_ADDRESS))?;
    device
        .shell
        .run(&format!(
            "for i in $(seq 60); do [ -e {BUS} ] && break; sleep 1; done; ls {BUS}"
        ))
        .map(drop)
}

fn granted(device: &mut Running, count: u64) -> Result<Value, Failure> {
    device.wait_for("credentials", LIMIT, |status| number(status) >= count)
}

fn number(status: &Value) -> u64 {
    status["credentials"]["granted"]
        .as_u64()
        .unwrap_or_default()
}

fn key_failures(status: &Value) -> u64 {
    status["credentials"]["failures"]["key"]
        .as_u64()
        .unwrap_or_default()
}
