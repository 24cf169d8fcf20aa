//! The metrics: Prometheus's own tool accepts them, and they say what the status says.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{LIMIT, Outcome, failures, lab, replicates, site};
use edgerepl_lab::{KeyKind, tools};
use serde_json::Value;

#[test]
fn promtool_accepts_them_and_they_agree_with_the_status() -> Outcome {
    let lab = lab(9)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "metrics")?;
    let mut site = site(&lab, &device)?;
    // A row in a while, so that both are looked at between two.
    site.set("heartbeat", "interval", "\"5s\"");
    let mut daemon = site.start()?;
    let file = site.runtime_file("edgerepl.prom");
    daemon.wait_for("a rotation", LIMIT, |status| {
        status["replication"]["last_gap_s"].is_number() && replicates(status)
    })?;
    lab.provider().set_listening(false)?;
    daemon.wait_for("a failure", LIMIT, |s| failures(s, "transient") > 0)?;

    let rows = format!(
        "edgerepl_heartbeat_rows_total{{database=\"{}\"}}",
        site.database().display()
    );
    let uploads = rows.replace("heartbeat_rows", "uploads");
    let bytes = rows.replace("heartbeat_rows", "uploaded_bytes");
    // The file follows the status within 10 s, where anything happens.
    let expected = |status: &Value, text: &str| {
        [
            (
                "edgerepl_credentials_grants_total",
                &status["credentials"]["granted"],
            ),
            (
                "edgerepl_litestream_starts_total",
                &status["replication"]["starts"],
            ),
            (
                "edgerepl_rotations_total",
                &status["replication"]["rotations"],
            ),
            (rows.as_str(), &status["heartbeat"]["rows"]),
            (&uploads, &status["databases"][0]["uploads"]),
            (&bytes, &status["databases"][0]["uploaded_bytes"]),
            (
                "edgerepl_credentials_failures_total{class=\"transient\"}",
                &status["credentials"]["failures"]["transient"],
            ),
        ]
        .iter()
        .all(|(name, value)| text.contains(&format!("\n{name} {value}\n")))
    };
    daemon.wait_for("the same in the metrics", LIMIT, |status| {
        fs::read_to_string(&file).is_ok_and(|text| expected(status, &text))
    })?;
    let text = fs::read_to_string(&file)?;
    for sample in [
        "{quantile=\"0.5\"} ",
        "{quantile=\"1\"} ",
        "_sum ",
        "_count ",
    ] {
        let sample = format!("\nedgerepl_rpo_held_seconds{sample}");
        assert!(text.contains(&sample), "{sample}: {text}");
    }
    for name in [
        "gap_seconds",
        "lag_seconds",
        "lag_rows",
        "duration_seconds",
        "expire_in_seconds",
    ] {
        let is_there = [" ", "{database="]
            .iter()
            .any(|end| text.contains(&format!("{name}{end}")));
        assert!(is_there, "{name}: {text}");
    }
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o644);
    let mut promtool = Command::new(tools::promtool()?)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut input) = promtool.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let judged = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&judged.stderr).into_owned();
    assert!(judged.status.success() && said.is_empty(), "{said}\n{text}");

    daemon.terminate()?;
    assert!(!file.exists(), "the figures of a daemon that has ended");
    Ok(())
}
