//! What the documentation shows of the commands' output is what they print, on a device with three
//! databases, with the real Litestream and S3.
//!
//! Owns the blocks of `docs/` under `<!-- output: NAME -->`: each is made here, and nothing else is
//! there. What differs from run to run (times, transactions, paths) is an example ([`EXAMPLES`]); a word
//! that changes fails. They are written anew by `EDGEREPL_WRITE=1 cargo xtask test documented`.

mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, lab, restores_of, site};
use edgerepl_lab::{Daemon, KeyKind, Lab, Site, tools};
use rusqlite::Connection;
use serde_json::Value;

/// The thing that the README names, too.
const THING: &str = "reterminal-0042";

/// As Litestream has it; edgerepl's configuration names the first two.
const NAMES: [&str; 3] = ["app.db", "measurements.db", "log.db"];

/// edgerepl's own configuration of them.
const CONFIGURED: &str = "\
[[database]]
path = \"/data/app/app.db\"

[[database]]
path = \"/data/app/measurements.db\"
wal_guard = \"16MiB\"
";

/// Lines in which something varies: between angle brackets is what is shown for it. A number stands for
/// any number, and a unit for any unit.
const EXAMPLES: &[&str] = &[
    // check
    "ok    key                      /data/edgerepl/device.key matches the certificate; opened in <1> ms, signed in <1> ms",
    "ok    sqlite                   SQLite <3.54.1> has no WAL-reset race; `edgerepl verify` can compare pages",
    // status
    "credentials   valid for <52 min>",
    "renewal       in <45 min>",
    "litestream    replicating, for <7 min>",
    "replica       held transaction <97>, <8 s> ago",
    "rpo held      <31 s> in the median, <50 s> at worst, in the last <7 min>",
    "uploads       <108> objects, <109 KiB>, since edgerepl's start",
    "unproved      the oldest for <21 s>; healthy up to 2 min",
    "lag           <2> rows, <8 s> (row <1795953600> is on the replica)",
    "rows          <96> written, the last <2 s> ago (id <1795953602>)",
    "/data/app/app.db  healthy  <7 s>  <97>  yes, <3.2 h> ago  <404 KiB>  -",
    "/data/app/measurements.db  idle  <21 s>  <1>  yes, <3.2 h> ago  <16 KiB>  -",
    "/data/app/log.db  idle  <21 s>  <1>  yes, <3.2 h> ago  <16 KiB>  -",
    // metrics
    "edgerepl_info{version=\"<0.1.0>\"} 1",
    "edgerepl_credentials_expire_in_seconds <3120.25>",
    "edgerepl_fetch_duration_seconds <0.62>",
    "edgerepl_oldest_unproved_seconds{database=\"/data/app/app.db\"} <7.1>",
    "edgerepl_oldest_unproved_seconds{database=\"/data/app/measurements.db\"} <21.3>",
    "edgerepl_oldest_unproved_seconds{database=\"/data/app/log.db\"} <21.3>",
    "edgerepl_rpo_held_seconds{quantile=\"0.5\"} <31.2>",
    "edgerepl_rpo_held_seconds{quantile=\"1\"} <50.4>",
    "edgerepl_rpo_held_seconds_sum <277.3>",
    "edgerepl_rpo_held_seconds_count <9>",
    "edgerepl_uploads_total{database=\"/data/app/app.db\"} <102>",
    "edgerepl_uploads_total{database=\"/data/app/measurements.db\"} <3>",
    "edgerepl_uploads_total{database=\"/data/app/log.db\"} <3>",
    "edgerepl_uploaded_bytes_total{database=\"/data/app/app.db\"} <63514>",
    "edgerepl_uploaded_bytes_total{database=\"/data/app/measurements.db\"} <24586>",
    "edgerepl_uploaded_bytes_total{database=\"/data/app/log.db\"} <24484>",
    "edgerepl_replica_lag_seconds{database=\"/data/app/app.db\"} <8.2>",
    "edgerepl_replica_lag_rows{database=\"/data/app/app.db\"} <2>",
    "edgerepl_heartbeat_rows_total{database=\"/data/app/app.db\"} <96>",
    "edgerepl_restorable_age_seconds{database=\"/data/app/app.db\"} <11520.5>",
    "edgerepl_restorable_files{database=\"/data/app/app.db\"} <4>",
    "edgerepl_restorable_bytes{database=\"/data/app/app.db\"} <61440>",
    "edgerepl_restorable_age_seconds{database=\"/data/app/measurements.db\"} <11520.5>",
    "edgerepl_restorable_files{database=\"/data/app/measurements.db\"} <1>",
    "edgerepl_restorable_bytes{database=\"/data/app/measurements.db\"} <8211>",
    "edgerepl_restorable_age_seconds{database=\"/data/app/log.db\"} <11520.5>",
    "edgerepl_restorable_files{database=\"/data/app/log.db\"} <1>",
    "edgerepl_restorable_bytes{database=\"/data/app/log.db\"} <8177>",
    // verify
    "all 11 pages equal the device's at transaction <97>, byte for byte; took <1.4> s; checkpoints \
     waited <0.0> s; integrity: ok",
    "all 10 pages equal the device's at transaction <1>, byte for byte; took <1.2> s; checkpoints \
     waited <0.0> s; integrity: ok",
    "1 of 10 pages differ from the device's at transaction <1>; took <1.2> s; checkpoints waited \
     <0.0> s; integrity: ok",
    "HealthCheck                              <96>         <96>  equal",
];

/// The same in JSON, by the place.
const EXAMPLES_IN_JSON: &[(&str, &str)] = &[
    ("/credentials/expiration", "\"2026-11-29T13:00:00Z\""),
    ("/credentials/expires_in_s", "3120.25"),
    ("/credentials/fetch_time_s", "0.62"),
    ("/credentials/renewal_in_s", "2714.5"),
    ("/databases/0/heartbeat/last_age_s", "2.09"),
    ("/databases/0/heartbeat/last_id", "1795953602"),
    ("/databases/0/heartbeat/rows", "96"),
    ("/databases/0/lag/row", "1795953600"),
    ("/databases/0/lag/rows", "2"),
    ("/databases/0/lag/s", "8.2"),
    ("/databases/0/oldest_unproved_s", "7.1"),
    ("/databases/0/proof/age_s", "8.1"),
    ("/databases/0/proof/transaction", "97"),
    ("/databases/0/wal_bytes", "413696"),
    ("/databases/1/oldest_unproved_s", "21.3"),
    ("/databases/1/proof/age_s", "402.7"),
    ("/databases/1/proof/transaction", "1"),
    ("/databases/1/wal_bytes", "16512"),
    ("/databases/2/oldest_unproved_s", "21.3"),
    ("/databases/2/proof/age_s", "402.7"),
    ("/databases/2/proof/transaction", "1"),
    ("/databases/2/wal_bytes", "16512"),
    ("/databases/0/restorable/bytes", "61440"),
    ("/databases/0/restorable/checked_s", "11520.5"),
    ("/databases/0/restorable/files", "4"),
    ("/databases/0/restorable/newest", "\"2026-11-29T09:48:00Z\""),
    ("/databases/0/restorable/oldest", "\"2026-11-29T00:00:00Z\""),
    ("/databases/0/restorable/whole_s", "11520.5"),
    ("/databases/1/restorable/bytes", "8211"),
    ("/databases/1/restorable/checked_s", "11520.5"),
    ("/databases/1/restorable/files", "1"),
    ("/databases/1/restorable/newest", "\"2026-11-29T09:48:00Z\""),
    ("/databases/1/restorable/oldest", "\"2026-11-29T00:00:00Z\""),
    ("/databases/1/restorable/whole_s", "11520.5"),
    ("/databases/2/restorable/bytes", "8177"),
    ("/databases/2/restorable/checked_s", "11520.5"),
    ("/databases/2/restorable/files", "1"),
    ("/databases/2/restorable/newest", "\"2026-11-29T09:48:00Z\""),
    ("/databases/2/restorable/oldest", "\"2026-11-29T00:00:00Z\""),
    ("/databases/2/restorable/whole_s", "11520.5"),
    ("/databases/0/uploads", "102"),
    ("/databases/0/uploaded_bytes", "63514"),
    ("/databases/1/uploads", "3"),
    ("/databases/1/uploaded_bytes", "24586"),
    ("/databases/2/uploads", "3"),
    ("/databases/2/uploaded_bytes", "24484"),
    ("/heartbeat/last_age_s", "2.09"),
    ("/heartbeat/last_id", "1795953602"),
    ("/heartbeat/rows", "96"),
    ("/pid", "412"),
    ("/replication/for_s", "432.1"),
    ("/replication/lag/row", "1795953600"),
    ("/replication/lag/rows", "2"),
    ("/replication/lag/s", "8.2"),
    ("/replication/oldest_unproved_s", "21.3"),
    ("/replication/pid", "431"),
    ("/replication/rpo_held/median_s", "31.2"),
    ("/replication/rpo_held/over_s", "432"),
    ("/replication/rpo_held/proofs", "9"),
    ("/replication/rpo_held/worst_s", "50.4"),
    ("/replication/proof/age_s", "8.1"),
    ("/replication/proof/transaction", "97"),
    ("/started", "\"2026-11-29T12:00:00Z\""),
    ("/version", "\"0.1.0\""),
];

/// The marker before a block.
const MARKER: &str = "<!-- output: ";

#[test]
fn each_output_in_the_documentation_is_what_the_program_prints() -> Outcome {
    let mut run = Run::new()?;
    let (daemon, moment) = run.watches()?;
    run.finds_faults()?;
    run.restores(daemon, &moment)?;
    let mut pages = BTreeMap::new();
    for entry in fs::read_dir(tools::root().join("docs"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "md") {
            let text = fs::read_to_string(&path)?;
            pages.insert(path, text);
        }
    }
    if env::var_os("EDGEREPL_WRITE").is_some() {
        for (path, text) in &mut pages {
            *text = with_blocks(text, &run.blocks);
            fs::write(path, text.as_bytes())?;
        }
    }
    let shown: BTreeMap<String, String> = pages.values().flat_map(|text| blocks(text)).collect();
    for (name, printed) in &run.blocks {
        let shown = shown.get(name).ok_or(format!("no page shows {name}"))?;
        assert!(
            shown == printed,
            "the documentation is out of date (EDGEREPL_WRITE=1 cargo xtask test documented):\n{}",
            difference(shown, printed)
        );
    }
    let made: Vec<_> = run.blocks.keys().collect();
    assert_eq!(
        shown.keys().collect::<Vec<_>>(),
        made,
        "one that nothing makes"
    );
    Ok(())
}

/// The device, and what was printed there.
struct Run {
    lab: Lab,
    site: Site,
    paths: Vec<(String, &'static str)>,
    blocks: BTreeMap<String, String>,
}

impl Run {
    fn new() -> Outcome<Self> {
        let lab = lab(3600)?;
        let device = lab.provision_pem(KeyKind::EcdsaP256, THING)?;
        let mut site = site(&lab, &device)?;
        site.set("replication", "rotation", "\"auto\"");
        site.set("replication", "rpo", "\"1m\"");
        site.set("heartbeat", "interval", "\"5s\"");
        let paths = paths(&lab, &site)?;
        let root = site.root().to_owned();
        let here = CONFIGURED.replace("/data/app", &root.display().to_string());
        site.add_layer("databases.toml", &here)?;
        site.replicate_too(NAMES.into_iter().skip(1))?;
        for (name, table) in NAMES.iter().zip(["settings", "measurements", "messages"]) {
            Connection::open(root.join(name))?.execute_batch(&format!(
                "PRAGMA journal_mode = wal;
                 CREATE TABLE {table} (id INTEGER PRIMARY KEY, text TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300)
                 INSERT INTO {table} (text) SELECT printf('%060d', i) FROM n;"
            ))?;
        }
        let mut run = Self {
            lab,
            site,
            paths,
            blocks: BTreeMap::new(),
        };
        run.keep("edgerepl.toml", CONFIGURED.to_owned());
        let text = fs::read_to_string(root.join("litestream.yml"))?;
        run.keep("litestream.yml", text);
        Ok(run)
    }

    /// All is well. Answers with a moment of then.
    fn watches(&mut self) -> Outcome<(Daemon, String)> {
        self.prints("check", &["check"])?;
        self.site.set("proof", "restorable", "\"10s\"");
        let mut daemon = self.site.start()?;
        is_idle(&mut daemon)?;
        self.prints("status", &["status"])?;
        let json = self.site.run(&["status", "--json"])?;
        let mut document: Value = serde_json::from_slice(&json.stdout)?;
        as_examples(&mut document)?;
        let text = format!("$ edgerepl status --json | jq\n{document:#}\n");
        self.keep("status --json", text);
        self.metrics()?;
        self.prints("verify", &["verify"])?;
        self.prints("verify NAME", &["verify", "measurements.db"])?;
        // A state is dated by when Litestream read it.
        thread::sleep(Duration::from_millis(1100));
        let mut date = Command::new("date");
        let date = date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
        let moment = String::from_utf8(date.stdout)?.trim().to_owned();
        thread::sleep(Duration::from_millis(1100));
        Ok((daemon, moment))
    }

    /// As they are once the daemon says that all is well.
    fn metrics(&mut self) -> Outcome {
        let file = self.site.runtime_file("edgerepl.prom");
        let begun = Instant::now();
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            if text.contains("edgerepl_healthy 1\n") {
                self.keep(
                    "metrics",
                    format!("$ cat /run/edgerepl/edgerepl.prom\n{text}"),
                );
                return Ok(());
            }
            if begun.elapsed() > LIMIT {
                return Err(format!("no metrics of a healthy device: {text}").into());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// A row is missing in one replica, and another replica is gone.
    fn finds_faults(&mut self) -> Outcome {
        let [saved, altered] = self.copies();
        let script = format!(
            "litestream \"$@\" || exit; if [ -e {altered:?} ]; then cp {altered:?} $o; else \
             cp $o {saved:?}; fi"
        );
        restores_of(&mut self.site, "measurements.db", &script)?;
        assert!(
            self.site
                .run(&["verify", "measurements.db"])?
                .status
                .success()
        );
        fs::copy(&saved, &altered)?;
        Connection::open(&altered)?.execute_batch("DELETE FROM measurements WHERE id = 7")?;
        let config = self.site.root().join("litestream.yml");
        let text = fs::read_to_string(&config)?;
        fs::write(
            &config,
            text.replace("THING_NAME}/log.db", "THING_NAME}/gone.db"),
        )?;
        self.prints("verify of damaged replicas", &["verify"])?;
        fs::write(config, text)?;
        Ok(())
    }

    /// Databases are lost, and come back.
    fn restores(&mut self, daemon: Daemon, moment: &str) -> Outcome {
        let database = Connection::open(self.site.root().join("measurements.db"))?;
        database.execute_batch("DELETE FROM measurements WHERE id > 200")?;
        drop(database);
        assert!(daemon.terminate()?.success());
        // A page of the copy is no page of SQLite's.
        let [saved, altered] = self.copies();
        let mut copy = fs::read(saved)?;
        copy[4096 * 3] = 0xff;
        fs::write(&altered, copy)?;
        self.lose("app.db")?;
        self.lose("measurements.db")?;
        self.prints("restore of a damaged replica", &["restore"])?;
        fs::remove_file(altered)?;
        self.prints("restore", &["restore"])?;
        self.lose("measurements.db")?;
        let words = ["restore", "--timestamp", moment];
        self.paths.push((moment.to_owned(), "2026-11-29T12:00:00Z"));
        self.prints("restore --timestamp", &words)
    }

    /// Where a copy is kept, and what is given back in its place where that is there.
    fn copies(&self) -> [PathBuf; 2] {
        ["saved", "altered"].map(|name| self.lab.root().join(name))
    }

    fn lose(&self, name: &str) -> Outcome {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(self.site.root().join(format!("{name}{end}")));
        }
        Ok(())
    }

    /// Runs the command, and keeps what it printed under this name.
    fn prints(&mut self, name: &str, arguments: &[&str]) -> Outcome {
        let output = self.site.run(arguments)?;
        let printed = [output.stdout, output.stderr].concat();
        let text = format!(
            "$ edgerepl {}\n{}",
            arguments.join(" "),
            String::from_utf8(printed)?
        );
        self.keep(name, text);
        Ok(())
    }

    fn keep(&mut self, name: &str, text: String) {
        let text = self
            .paths
            .iter()
            .fold(text, |text, (here, there)| text.replace(here, there));
        let lines = text.lines().map(example).collect();
        let lines = with_columns(lines).into_iter().map(|line| line + "\n");
        self.blocks.insert(name.to_owned(), lines.collect());
    }
}

/// Where the device's files are here, and where they are on a device; the longer ones first.
fn paths(lab: &Lab, site: &Site) -> Outcome<Vec<(String, &'static str)>> {
    let text = |path: &Path| path.display().to_string();
    let runtime = site.runtime_file("");
    Ok(vec![
        (text(&site.config()), "/etc/edgerepl/edgerepl.toml"),
        (
            text(&site.root().join("litestream.yml")),
            "/etc/litestream.yml",
        ),
        (text(site.root()), "/data/app"),
        (
            text(&runtime).trim_end_matches('/').to_owned(),
            "/run/edgerepl",
        ),
        (text(&site.device.certificate), "/data/edgerepl/device.crt"),
        (site.device.private_key.clone(), "/data/edgerepl/device.key"),
        (text(lab.ca_file()), "/usr/share/edgerepl/aws-iot-ca.pem"),
        (text(&tools::litestream("0.5.17")?), "/usr/bin/litestream"),
        (format!("      endpoint: {}\n", lab.s3().endpoint()), ""),
        (
            format!("bucket: {}\n", lab.s3().bucket()),
            "bucket: my-fleet\n",
        ),
        (format!("s3://{}/", lab.s3().bucket()), "s3://my-fleet/"),
        (
            format!("{:?}", lab.provider().endpoint()),
            "\"abc123.credentials.iot.ap-northeast-1.amazonaws.com:443\"",
        ),
        (
            format!("{:?}", lab.s3().endpoint().trim_start_matches("http://")),
            "\"s3.ap-northeast-1.amazonaws.com:443\"",
        ),
        // Nobody waits a day for a document.
        ("planned each 10s".to_owned(), "planned each 1d"),
    ])
}

/// Waits until the first database is healthy and has a row that is not proved yet, and nothing was
/// written to the others since all of them was proved; each can be restored.
fn is_idle(daemon: &mut Daemon) -> Outcome {
    daemon.wait_for("idle databases", LIMIT, |status| {
        let all = status["databases"].as_array().into_iter().flatten();
        let states: Vec<_> = all.map(|database| database["state"].as_str()).collect();
        let mut all = status["databases"].as_array().into_iter().flatten();
        let are_restorable = all.all(|each| each["restorable"]["state"] == "restorable");
        let unproved = status["databases"][0]["oldest_unproved_s"].as_f64();
        are_restorable
            && states == [Some("healthy"), Some("idle"), Some("idle")]
            && status["state"] == "healthy"
            && unproved.is_some_and(|age| (2.0..15.0).contains(&age))
    })?;
    Ok(())
}

/// The line, or what is shown for it.
fn example(line: &str) -> String {
    let pattern = EXAMPLES.iter().find(|pattern| fits(line, pattern));
    pattern.map_or_else(
        || line.to_owned(),
        |pattern| pattern.replace(['<', '>'], ""),
    )
}

/// The lines with the columns of a table of databases as wide as what is shown there.
fn with_columns(mut lines: Vec<String>) -> Vec<String> {
    let heading = lines.iter().position(|line| line.starts_with("database  "));
    let Some(heading) = heading else { return lines };
    let cells = |line: &String| -> Vec<String> {
        let parts = line.split("  ").map(str::trim);
        let parts = parts.filter(|part| !part.is_empty());
        parts.map(str::to_owned).collect()
    };
    let rows: Vec<_> = lines[heading..].iter().map(cells).collect();
    for (line, row) in lines[heading..].iter_mut().zip(&rows) {
        line.clear();
        for (column, cell) in row.iter().enumerate() {
            let widths = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(String::len);
            let width = widths.max().unwrap_or_default();
            *line += &format!("{cell:<width$}  ");
        }
        line.truncate(line.trim_end().len());
    }
    lines
}

/// Whether the line is the pattern but for what varies, and for the width of columns.
fn fits(line: &str, pattern: &str) -> bool {
    let (mut rest, mut is_example) = (line, false);
    for part in pattern.split(['<', '>']) {
        let eaten = match is_example {
            true => eat_example(rest, part),
            false => eat_words(rest, part),
        };
        let Some(left) = eaten else { return false };
        (rest, is_example) = (left, !is_example);
    }
    rest.is_empty()
}

/// What follows the words; two spaces or more stand for any number of them.
fn eat_words<'a>(mut line: &'a str, words: &str) -> Option<&'a str> {
    let mut words = words;
    while let Some(next) = words.chars().next() {
        if words.starts_with("  ") {
            words = words.trim_start_matches(' ');
            line = line.strip_prefix(' ')?.trim_start_matches(' ');
        } else {
            words = &words[next.len_utf8()..];
            line = line.strip_prefix(next)?;
        }
    }
    Some(line)
}

/// What follows something like the example.
fn eat_example<'a>(mut line: &'a str, mut example: &str) -> Option<&'a str> {
    const UNITS: [&str; 7] = ["s", "min", "h", "d", "KiB", "MiB", "ms"];
    let end =
        |text: &str, is_part: fn(char) -> bool| text.find(|c| !is_part(c)).unwrap_or(text.len());
    let is_of_number = |c: char| c.is_ascii_digit() || c == '.';
    while let Some(next) = example.chars().next() {
        let is_part = if next.is_ascii_digit() {
            is_of_number
        } else {
            |c: char| c.is_ascii_alphabetic()
        };
        let (length, there) = (end(example, is_part).max(1), end(line, is_part));
        let (shown, found) = (&example[..length], line.get(..there.max(1))?);
        let is_like = match next.is_ascii_digit() {
            true => there > 0,
            false => shown == found || UNITS.contains(&shown) && UNITS.contains(&found),
        };
        if !is_like {
            return None;
        }
        (example, line) = (&example[length..], &line[found.len()..]);
    }
    Some(line)
}

/// Puts examples into the document, for values of their kind.
fn as_examples(document: &mut Value) -> Outcome {
    for (place, example) in EXAMPLES_IN_JSON {
        let example: Value = serde_json::from_str(example)?;
        if let Some(value) = document.pointer_mut(place)
            && std::mem::discriminant(value) == std::mem::discriminant(&example)
        {
            *value = example;
        }
    }
    Ok(())
}

/// The blocks of a page, by their names.
fn blocks(page: &str) -> impl Iterator<Item = (String, String)> {
    page.split(MARKER).skip(1).filter_map(|part| {
        let (name, rest) = part.split_once(" -->\n```")?;
        let (_, rest) = rest.split_once('\n')?;
        let (block, _) = rest.split_once("```\n")?;
        Some((name.to_owned(), block.to_owned()))
    })
}

/// The page with these blocks in the place of those that it has.
fn with_blocks(page: &str, made: &BTreeMap<String, String>) -> String {
    let mut text = page.to_owned();
    for (name, old) in blocks(page) {
        let Some(new) = made.get(&name) else { continue };
        let marker = format!("{MARKER}{name} -->\n```");
        let at = text.find(&marker).map_or(0, |at| at + marker.len());
        let begins = text[at..].find('\n').map_or(at, |line| at + line + 1);
        text.replace_range(begins..begins + old.len(), new);
    }
    text
}

/// The lines in which they differ.
fn difference(shown: &str, printed: &str) -> String {
    let lines = |text: &str, of: &str, sign: &str| -> String {
        let other: Vec<_> = of.lines().collect();
        let only = text.lines().filter(|line| !other.contains(line));
        only.map(|line| format!("{sign}{line}\n")).collect()
    };
    lines(shown, printed, "-") + &lines(printed, shown, "+")
}
