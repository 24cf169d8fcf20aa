//! An update over the air, and its way back, on one data partition: the release before this one, this one, and the
//! release before it again. Each reads what the other has left.
//!
//! Needs the earlier release's program: `cargo xtask test earlier` builds it.

mod common;

use std::fs;
use std::path::Path;
use std::time::Instant;

use common::{LIMIT, Outcome, lab, replicates};
use edgerepl_lab::{Device, KeyKind, Lab, S3Request, Site, tools};
use rusqlite::Connection;

/// What each of them remembers of a database that none of them can look at now: it has to stay remembered.
const REMEMBERED: [&str; 3] = ["begin-anew.json", "unrestorable.json", "differs.json"];

/// What is in the database: an upload of all of it stands out against rows.
const FILLING: u64 = 1 << 20;

#[test]
#[ignore = "needs the earlier release"]
fn what_one_release_leaves_the_other_one_reads() -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "update")?;
    let (earlier, this) = (tools::earlier()?, tools::edgerepl()?);
    let state = lab.root().join("sites/update/state");
    fs::create_dir_all(&state)?;
    let begun = Instant::now();
    let database = site(&lab, &device, &this, &state)?.database();
    Connection::open(database)?.execute_batch(&format!(
        "PRAGMA journal_mode = wal; CREATE TABLE filling (data BLOB); \
         INSERT INTO filling VALUES (randomblob({FILLING}))"
    ))?;
    let other = r#"["/data/another's.db"]"#;
    for name in REMEMBERED {
        fs::write(state.join(name), other)?;
    }
    for (turn, program) in [&earlier, &this, &earlier, &this].into_iter().enumerate() {
        let slot = if program == &this { "B" } else { "A" };
        live(&lab, &device, program, &state).map_err(|e| format!("{slot}, turn {turn}: {e}"))?;
        for name in REMEMBERED {
            assert_eq!(
                fs::read_to_string(state.join(name))?,
                other,
                "{name}, {slot}, turn {turn}"
            );
        }
        let uploads = lab.s3().uploads(begun).into_iter();
        // Other levels rearrange what S3 has already.
        let is_whole =
            |upload: &S3Request| upload.key.contains("/0000/") && upload.bytes > FILLING / 2;
        let whole = uploads.filter(is_whole).count();
        assert_eq!(
            whole, 1,
            "{slot}, turn {turn}: Litestream's position is lost"
        );
    }
    // And this one is what the first one took for a new image.
    let site = site(&lab, &device, &this, &state)?;
    let form = fs::read_to_string(state.join("form.json"))?;
    assert!(form.contains("\"form\":1"), "{form}");
    let comparison = site.compare(&lab)?;
    assert!(comparison.is_equal(), "{comparison:?}");
    assert!(comparison.live >= 4 * 3, "{comparison:?}");
    Ok(())
}

/// A boot with one release: healthy, some rows, and a stop before the reboot. Nobody looks at the database after it:
/// SQLite would empty the WAL.
fn live(lab: &Lab, device: &Device, program: &Path, state: &Path) -> Outcome {
    let site = site(lab, device, program, state)?;
    let mut daemon = site.start()?;
    daemon.wait_for("health and rows", LIMIT, |status| {
        status["state"] == "healthy"
            && replicates(status)
            && status["heartbeat"]["rows"].as_u64() >= Some(3)
    })?;
    let log = daemon.log();
    assert!(!log.contains("can't be read"), "{log}");
    assert!(daemon.terminate()?.success());
    Ok(())
}

fn site(lab: &Lab, device: &Device, program: &Path, state: &Path) -> Outcome<Site> {
    let mut site = Site::new(lab, device.clone(), program)?;
    site.set("heartbeat", "interval", "\"500ms\"");
    site.set_env("STATE_DIRECTORY", state.display().to_string());
    Ok(site)
}
