//! Two devices that were made from one image write to the same prefix. Each says so, and neither
//! mends what the other would break again.

use std::fs;
use std::process::Command;
use std::time::Instant;

use edgerepl_lab::{KeyKind, Site, tools};
use serde_json::Value;

use super::{
    FIRST, ONE_SNAPSHOT, PACE, ROTATIONS, ROW, SNAPSHOT, is_restorable, newest, prepared, watch,
};
use crate::support::{
    Application, LIMIT, Result, all_at_once, database_of, has_problem, local_state, snapshots,
    tune_litestream,
};

const TOLD: &str = "another device writes to the same prefix";

#[test]
fn two_devices_in_one_prefix_are_told_and_never_mended() -> Result {
    all_at_once(&ROTATIONS, |rotation| share(rotation))
}

fn share(rotation: &str) -> Result {
    let (lab, original) = prepared(&format!("shared-{rotation}"), rotation)?;
    tune_litestream(&original, ONE_SNAPSHOT)?;
    let mut daemon = original.start()?;
    let application = Application::writing(&original, ROW)?;
    let objects = lab.s3().objects(&format!("shared-{rotation}/{FIRST}"));
    daemon.wait_for("health", LIMIT, |status| {
        status["state"] == "healthy"
            && is_restorable(status, FIRST)
            && newest(&objects, SNAPSHOT).is_ok()
    })?;
    application.stop()?;
    assert!(daemon.terminate()?.success());

    let device = lab.provision_pem(KeyKind::EcdsaP256, &format!("shared-{rotation}-clone"))?;
    let mut clone = Site::new(&lab, device, tools::edgerepl()?)?;
    clone.set("replication", "rotation", format!("{rotation:?}"));
    clone.set("proof", "restorable", format!("{PACE:?}"));
    copy_image(&original, &clone)?;
    tune_litestream(&clone, ONE_SNAPSHOT)?;
    let since = Instant::now();
    let mut daemons = [original.start()?, clone.start()?];
    let applications = [
        Application::writing(&original, ROW)?,
        Application::writing(&clone, ROW)?,
    ];
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
    for daemon in daemons {
        assert!(daemon.terminate()?.success());
    }
    let made = snapshots(&lab, since);
    assert!(made.is_empty(), "it was mended: {made:#?}");
    Ok(())
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
