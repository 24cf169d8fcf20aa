//! What edgerepl depends on in the device: a Litestream that systemd runs, a token in trouble, a PIN.

use super::evidence::{ensure, no_failed_units, rows, same_daemon};
use super::{Bench, Failure, Figures, LONG, SHORT};
use crate::qemu::rig::{LIMIT, Rig, Running};

pub(super) fn systemd_supervisor(bench: &Bench) -> Result<Figures, Failure> {
    let mut rig = bench.rig("systemd-supervisor", SHORT)?;
    rig.set("replication.supervisor = \"systemd\"");
    rig.set("replication.rotation = \"refresh\"");
    let mut device = rig.first_boot()?;
    let status = device.wait_until_healthy()?;
    let refreshed = status["replication"]["rotations"].as_u64().unwrap_or(0);
    let run = run_of(&mut device)?;
    device.wait_for_rotations(refreshed + 3)?;
    let status = device.wait_until_healthy()?;
    let after = run_of(&mut device)?;
    ensure(run == after, || format!("it was restarted: {run}, {after}"))?;
    let rotation = &status["replication"]["rotation"];
    ensure(rotation == "refresh", || status.to_string())?;
    let refreshed = status["replication"]["rotations"].as_u64().unwrap_or(0);
    ensure_environment(&mut device, &rig, "AWS_CONFIG_FILE")?;

    // The same device by restarts: the first one hands the credentials over, and three rotations more.
    device
        .shell
        .run(&format!("sed -i 's/\"refresh\"/\"restart\"/' {LAYER}"))?;
    device.shell.run("systemctl reload edgerepl.service")?;
    let status = device.wait_for_rotations(refreshed + 4)?;
    let rotation = &status["replication"]["rotation"];
    ensure(rotation == "restart", || status.to_string())?;
    let after = run_of(&mut device)?;
    ensure(run != after, || format!("it was not restarted: {run}"))?;
    ensure_environment(&mut device, &rig, "AWS_SECRET_ACCESS_KEY")?;
    let pid = device.property("edgerepl.service", "MainPID")?;
    let (_, user) = device.owner(&format!("/proc/{pid}"))?;
    ensure(user == "edgerepl", || format!("it runs as {user}"))?;
    no_failed_units(&mut device)?;
    // Both units at once, as in a shutdown: Litestream outlives edgerepl, and takes its last row.
    device.power_off()?;
    Ok(vec![
        ("rotations without a restart", refreshed.to_string()),
        (
            "all rotations",
            status["replication"]["rotations"].to_string(),
        ),
        (
            "last gap, seconds",
            status["replication"]["last_gap_s"].to_string(),
        ),
        rows(&rig)?,
    ])
}

/// Which run of Litestream's unit this is: another one after each restart, whoever asked for it.
fn run_of(device: &mut Running) -> Result<String, Failure> {
    let state = device.property("litestream.service", "ActiveState")?;
    ensure(state == "active", || {
        format!("litestream.service is {state}")
    })?;
    let mut run = Vec::new();
    for name in ["InvocationID", "MainPID", "NRestarts"] {
        run.push(device.property("litestream.service", name)?);
    }
    Ok(run.join(" "))
}

/// The environment file is edgerepl's alone, in memory, and says `name`; a secret only where that is one.
fn ensure_environment(device: &mut Running, rig: &Rig, name: &str) -> Result<(), Failure> {
    let file = "/run/edgerepl/litestream.env";
    let (mode, user) = device.owner(file)?;
    let kind = device.shell.run(&format!("findmnt -no FSTYPE -T {file}"))?;
    ensure(
        mode.starts_with("-rw-------") && user == "edgerepl" && kind.trim() == "tmpfs",
        || format!("{file} has {mode} and is {user}'s, on {kind}"),
    )?;
    let text = device.shell.run(&format!("cat {file}"))?;
    let told = text
        .lines()
        .any(|line| line.starts_with(&format!("{name}=")));
    let secret = rig.secrets().iter().any(|secret| text.contains(secret));
    ensure(told && secret == name.contains("SECRET"), || {
        format!("{file} without {name}, or a secret: {secret}")
    })
}

pub(super) fn token_trouble(bench: &Bench) -> Result<Figures, Failure> {
    let rig = bench.rig("token-trouble", LONG)?;
    // The module is not where the configuration says; nobody is there to mend it at once.
    let mut device = rig.first_boot()?;
    device.wait_until_healthy()?;
    device
        .shell
        .run(&format!("sed -i 's/libsofthsm2.so/missing.so/' {LAYER}"))?;
    device.shell.run("systemctl restart edgerepl.service")?;
    let status = device.wait_for("a problem", LIMIT, |status| {
        status["problems"][0]
            .as_str()
            .is_some_and(|problem| problem.contains("missing.so"))
    })?;
    let problem = status["problems"][0]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let (code, check) = device.shell.try_run("edgerepl check")?;
    ensure(code == 1 && check.contains("missing.so"), || {
        format!("check ({code}): {check}")
    })?;
    device
        .shell
        .run(&format!("sed -i 's/missing.so/libsofthsm2.so/' {LAYER}"))?;
    device.shell.run("systemctl reload edgerepl.service")?;
    device.wait_until_healthy()?;

    // It hangs from the very start.
    device.hang_token()?;
    device.shell.run("systemctl restart edgerepl.service")?;
    let status = device.wait_for("a killed child", LIMIT, |status| {
        status["credentials"]["failures"]["key"].as_u64() >= Some(1)
    })?;
    let rows_written = status["heartbeat"]["rows"].as_u64();
    ensure(rows_written > Some(10), || {
        format!("rows waited for the key: {status:#}")
    })?;
    device.let_go_of_token()?;
    let after = device.wait_until_healthy()?;
    same_daemon(&after, &status["pid"])?;

    pin_as_credential(&mut device)?;
    device.shut_down()?;
    Ok(vec![("a missing module", problem), rows(&rig)?])
}

/// The PIN as a systemd credential, encrypted for this device; nothing else holds it any more.
fn pin_as_credential(device: &mut Running) -> Result<(), Failure> {
    const KEPT: &str = "/data/edgerepl/pin.cred";
    const DROP_INS: &str = "/run/systemd/system/edgerepl.service.d";
    for step in [
        format!("systemd-creds encrypt --with-key=host --name=pin {PIN} {KEPT} && rm {PIN}"),
        format!(
            "mkdir -p {DROP_INS} && \
             printf '[Service]\\nLoadCredentialEncrypted=pin:{KEPT}\\n' >{DROP_INS}/pin.conf"
        ),
        format!("sed -i 's|file:{PIN}|file:/run/credentials/edgerepl.service/pin|' {LAYER}"),
        "systemctl daemon-reload && systemctl restart edgerepl.service".to_owned(),
    ] {
        device.shell.run(&step)?;
    }
    let status = device.wait_until_healthy()?;
    ensure(status["credentials"]["granted"].as_u64() >= Some(1), || {
        status.to_string()
    })
}

/// Where a device has its PIN, and the part of its configuration that is its own.
const PIN: &str = "/data/edgerepl/private/pin";
const LAYER: &str = "/data/edgerepl/edgerepl.toml.d/50-bench.toml";
