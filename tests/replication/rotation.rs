//! Six rotations by each supervisor: no row is lost, no credentials are used past their end, and
//! Litestream goes on where it was. Each test prints how long the replica stood still.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use edgerepl_lab::{Daemon, KeyKind, Lab, LabOptions, Site, tools};

use crate::{
    support::{
        Application, LIMIT, Result, SHORT, assert_nothing_lost, assert_one_full_upload, fill,
        has_problem, number, site, used_keys, wait_until,
    },
    unit::Unit,
};

const ROTATIONS: u64 = 6;

#[test]
fn by_edgerepl_itself() -> Result {
    let (lab, site) = site("thing-child", SHORT)?;
    fill(&site)?;
    rotate(&lab, &site, "child, Litestream 0.5.17", |daemon| {
        assert!(daemon.terminate()?.success());
        Ok(())
    })
}

#[test]
fn by_edgerepl_itself_with_a_key_in_a_token() -> Result {
    let lab = Lab::start(LabOptions {
        lifetime: SHORT,
        ..LabOptions::default()
    })?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "thing-token")?;
    let site = Site::new(&lab, device, tools::edgerepl()?)?;
    fill(&site)?;
    rotate(
        &lab,
        &site,
        "child with a token, Litestream 0.5.17",
        |daemon| {
            assert!(daemon.terminate()?.success());
            Ok(())
        },
    )
}

#[test]
fn by_edgerepl_itself_without_a_control_socket() -> Result {
    let (lab, mut site) = site("thing-child-0-3", SHORT)?;
    site.use_litestream(&lab, "0.3.13")?;
    fill(&site)?;
    rotate(&lab, &site, "child, Litestream 0.3.13", |daemon| {
        assert!(daemon.terminate()?.success());
        Ok(())
    })
}

#[test]
fn by_systemd() -> Result {
    let (lab, mut site) = site("thing-systemd", SHORT)?;
    let unit = Unit::install(&lab, &mut site)?;
    fill(&site)?;
    rotate(&lab, &site, "systemd, Litestream 0.5.17", |daemon| {
        let file = fs::metadata(site.runtime_file("litestream.env"))?;
        assert_eq!(file.permissions().mode() & 0o7777, 0o600);
        assert!(!site.runtime_file(".litestream.env.new").exists());
        assert!(daemon.terminate()?.success());
        unit.stop(&site)
    })?;
    let calls = fs::read_to_string(&unit.calls)?;
    let restarts = calls
        .lines()
        .filter(|call| *call == "--no-ask-password restart litestream.service");
    assert_eq!(restarts.count() as u64, ROTATIONS + 1, "{calls}");
    Ok(())
}

#[test]
fn secrets_are_not_written_to_a_disk() -> Result {
    let (lab, mut site) = site("thing-disk", SHORT)?;
    let _unit = Unit::install(&lab, &mut site)?;
    let on_disk = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("litestream.env");
    site.set("replication", "environment_file", format!("{on_disk:?}"));
    let mut daemon = site.start()?;
    daemon.wait_for("refusal", LIMIT, |status| {
        has_problem(
            status,
            "is not on tmpfs, and edgerepl writes no secret to flash",
        )
    })?;
    assert!(!on_disk.exists());
    assert!(!on_disk.with_file_name(".litestream.env.new").exists());
    Ok(())
}

/// Six rotations while an application writes; then `end` ends the daemon and Litestream.
fn rotate(lab: &Lab, site: &Site, name: &str, end: impl FnOnce(Daemon) -> Result) -> Result {
    let application = Application::writing(site, Duration::from_millis(100))?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("six rotations", LIMIT, |status| {
        number(status, "replication", "rotations") >= ROTATIONS
            && number(status, "replication", "starts") > ROTATIONS
    })?;
    assert_eq!(number(&status, "replication", "starts"), ROTATIONS + 1);
    // Litestream that ends before it has opened the database does not sync for a last time.
    wait_until("an upload with the last credentials", || {
        let last = lab
            .provider()
            .issued()
            .pop()
            .map(|session| session.access_key_id);
        lab.s3()
            .requests()
            .iter()
            .any(|r| r.is_upload() && r.access_key_id == last)
    })?;
    assert!(application.stop()? > 100);
    end(daemon)?;

    assert_nothing_lost(lab, site)?;
    assert_one_full_upload(lab);
    let refused: Vec<_> = lab
        .s3()
        .requests()
        .into_iter()
        .filter(|r| r.error.is_some())
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    let issued = lab.provider().issued();
    assert_eq!(issued.len() as u64, ROTATIONS + 1);
    let issued: BTreeSet<_> = issued
        .into_iter()
        .map(|session| session.access_key_id)
        .collect();
    assert_eq!(used_keys(lab), issued, "not all credentials were used");
    report(lab, name);
    Ok(())
}

/// From the last upload with one set of credentials to the first with the next.
fn report(lab: &Lab, name: &str) {
    let mut last: Option<(String, Instant)> = None;
    let mut gaps = Vec::new();
    for upload in lab.s3().requests().into_iter().filter(|r| r.is_upload()) {
        let Some(key) = upload.access_key_id else {
            continue;
        };
        if let Some((before, at)) = &last
            && *before != key
        {
            gaps.push(upload.at.duration_since(*at));
        }
        last = Some((key, upload.at));
    }
    gaps.sort();
    if let (Some(median), Some(longest)) = (gaps.get(gaps.len() / 2), gaps.last()) {
        println!(
            "{name}: {} gaps, median {} ms, longest {} ms",
            gaps.len(),
            median.as_millis(),
            longest.as_millis()
        );
    }
}
