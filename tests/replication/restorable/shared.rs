//! Two devices that were made from one image write to the same prefix. Each says so, and neither
//! mends what the other would break again. One that comes late does not even begin.

use std::fs;
use std::process::Command;
use std::time::Instant;

use edgerepl_lab::{Daemon, KeyKind, Lab, S3Fault, Site, tools};
use serde_json::Value;

use super::{
    FIRST, ONE_SNAPSHOT, PACE, ROTATIONS, ROW, SNAPSHOT, is_restorable, newest, prepared, watch,
};
use crate::support::{
    Application, LIMIT, Result, all_at_once, assert_nothing_lost, database_of, has_problem,
    local_state, number, snapshots, tune_litestream,
};

const TOLD: &str = "another device writes to the same prefix";

#[test]
fn two_devices_in_one_prefix_are_told_and_never_mended() -> Result {
    all_at_once(&ROTATIONS, |rotation| share(rotation))
}

fn share(rotation: &str) -> Result {
    let name = format!("shared-{rotation}");
    let (lab, original, clone) = cloned(&name, rotation)?;
    let since = Instant::now();
    // Neither sees the other before both upload.
    lab.s3().set_fault(S3Fault::RefusesLists)?;
    let mut daemons = [original.start()?, clone.start()?];
    let applications = [
        Application::writing(&original, ROW)?,
        Application::writing(&clone, ROW)?,
    ];
    for daemon in &mut daemons {
        daemon.wait_for("Litestream", LIMIT, |status| {
            number(status, "replication", "starts") == 1
        })?;
    }
    lab.s3().set_fault(S3Fault::None)?;
    for daemon in &mut daemons {
        let told = daemon.wait_for(TOLD, LIMIT, is_told)?;
        let named = since.elapsed().as_secs_f32();
        println!("{rotation}: named after {named:.1} s: {}", told["problems"]);
    }
    for daemon in &mut daemons {
        watch(daemon, FIRST, is_unhealthy)?;
    }
    for application in applications {
        application.stop()?;
    }
    let logs = daemons.each_ref().map(Daemon::log);
    for daemon in daemons {
        assert!(daemon.terminate()?.success());
    }
    let made = snapshots(&lab, since);
    assert!(
        made.is_empty(),
        "it was mended: {made:#?}; the logs:\n{}",
        logs.join("\nthe other's:\n")
    );
    Ok(())
}

/// It sees that the bucket grows before it has uploaded anything itself.
#[test]
fn a_clone_whose_original_runs_uploads_nothing() -> Result {
    all_at_once(&ROTATIONS, |rotation| come_late(rotation))
}

fn come_late(rotation: &str) -> Result {
    let name = format!("late-{rotation}");
    let (lab, original, clone) = cloned(&name, rotation)?;
    let mut running = original.start()?;
    let application = Application::writing(&original, ROW)?;
    running.wait_for("health", LIMIT, |status| {
        status["state"] == "healthy" && is_restorable(status, FIRST)
    })?;
    let since = Instant::now();
    let mut daemon = clone.start()?;
    let own = Application::writing(&clone, ROW)?;
    let told = daemon.wait_for(TOLD, LIMIT, is_told)?;
    let named = since.elapsed().as_secs_f32();
    println!("{rotation}: named after {named:.1} s: {}", told["problems"]);
    // The original's plans show nothing of it.
    watch(&mut running, FIRST, |status| is_restorable(status, FIRST))?;
    let status = daemon.wait_for("answer", LIMIT, |_| true)?;
    assert!(is_told(&status), "{status:#}");
    assert_eq!(number(&status, "replication", "starts"), 0, "{status:#}");
    own.stop()?;
    assert!(daemon.terminate()?.success());
    application.stop()?;
    assert!(running.terminate()?.success());
    assert_nothing_lost(&lab, &original)
}

/// A device whose replica can be restored, and another one from an image of its disk, both stopped.
fn cloned(name: &str, rotation: &str) -> Result<(Lab, Site, Site)> {
    let (lab, original) = prepared(name, rotation)?;
    tune_litestream(&original, ONE_SNAPSHOT)?;
    let mut daemon = original.start()?;
    let application = Application::writing(&original, ROW)?;
    let objects = lab.s3().objects(&format!("{name}/{FIRST}"));
    daemon.wait_for("health", LIMIT, |status| {
        status["state"] == "healthy"
            && is_restorable(status, FIRST)
            && newest(&objects, SNAPSHOT).is_ok()
    })?;
    application.stop()?;
    assert!(daemon.terminate()?.success());

    let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("{name}-clone"))?;
    let mut clone = Site::new(&lab, device, tools::edgerepl()?)?;
    clone.set("replication", "rotation", format!("{rotation:?}"));
    clone.set("proof", "restorable", format!("{PACE:?}"));
    copy_image(&original, &clone)?;
    tune_litestream(&clone, ONE_SNAPSHOT)?;
    Ok((lab, original, clone))
}

/// The database, Litestream's state of it and its prefix, as an image of the device's disk has them.
fn copy_image(original: &Site, clone: &Site) -> Result {
    for from in [original.database(), local_state(&original.database())] {
        let copied = Command::new("cp")
            .arg("-a")
            .arg(&from)
            .arg(clone.root())
            .status()?;
        assert!(copied.success(), "{} was not copied", from.display());
    }
    let file = clone.root().join("litestream.yml");
    let config = fs::read_to_string(&file)?;
    let config = config.replace("${EDGEREPL_THING_NAME}", &original.device.thing_name);
    Ok(fs::write(file, config)?)
}

fn is_told(status: &Value) -> bool {
    let restorable = &database_of(status, FIRST)["restorable"];
    let cause = restorable["cause"].as_str();
    is_unhealthy(status)
        && restorable["state"] == "shared"
        && cause.is_some_and(|cause| cause.contains(TOLD))
        && has_problem(status, TOLD)
}

fn is_unhealthy(status: &Value) -> bool {
    status["state"] == "unhealthy" && database_of(status, FIRST)["state"] == "unhealthy"
}
