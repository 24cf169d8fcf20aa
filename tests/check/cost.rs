//! What `check` says of the cost with a `litestream.yml` of the user's own: what its intervals mean, and the lines
//! that are cheaper. Each proposal is taken here, and has to keep its word.

use std::fs;

use edgerepl_lab::{KeyKind, Lab, LabOptions, Site, tools};
use serde_json::Value;

use super::{LIMIT, Outcome, checks, report};

/// Litestream's own intervals, and a row each half second.
#[test]
fn the_proposed_lines_are_accepted_and_cost_less() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-taken")?;
    let before = cost(&site)?;
    assert_eq!(before["outcome"], "warn", "{before}");
    assert_eq!(before["figures"]["may_be_lost_s"], 2.0, "{before}");
    let detail = before["detail"].as_str().unwrap_or_default();
    let lists = |group: &str| before["figures"][group]["idle"]["list"].as_f64();
    let (old, new) = (
        lists("requests_a_month"),
        lists("requests_a_month_in_new_bucket"),
    );
    assert!(new > Some(0.0) && old > new, "{before}");
    for words in [
        "while the bucket is new",
        "2 s may be lost, where [replication] rpo allows 36 s",
        "a heartbeat row each 500 ms is 170,000 durable writes a day, where [replication] rpo needs 2,400",
    ] {
        assert!(detail.contains(words), "{words}: {before}");
    }
    let printed = site.run(&["check"])?.stdout;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    for line in proposed(&before, "").chain(proposed(&before, "dbs[0]")) {
        let is_shown = printed.lines().any(|shown| shown.trim() == line.trim());
        assert!(is_shown, "{line}: {printed}");
    }

    take(&mut site, &before)?;
    let after = cost(&site)?;
    assert_eq!(after["outcome"], "pass", "{after}");
    assert!(!after["detail"].to_string().contains("is new"), "{after}");
    assert_eq!(after["proposal"], Value::Null, "{after}");
    assert_eq!(after["figures"]["may_be_lost_s"], 36.0, "{after}");
    for load in ["idle", "busy"] {
        let [then, now] = [&before, &after].map(|cost| dollars(cost, load));
        assert!(then > 3.0 * now && now > 0.0, "{load}: {then}, {now}");
        let [then, now] = [&before, &after].map(|cost| bytes(cost, load));
        assert!(then > 3.0 * now && now > 0.0, "{load}: {then}, {now}");
        let as_told = format!("{:.2} US dollars", dollars(&after, load));
        assert!(detail.contains(&as_told), "{as_told}: {before}");
    }
    let report = report(&site.run(&["check", "--json"])?)?;
    let read = checks(&report).find(|check| check["name"] == "litestream_config");
    assert_eq!(read.ok_or("no check of it")?["outcome"], "pass", "{report}");
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |status| status["state"] == "healthy")?;
    assert!(daemon.terminate()?.success());
    Ok(())
}

/// The lines are for every database, in the order of the file.
#[test]
fn each_database_of_the_file_gets_its_lines() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-several")?;
    site.replicate_too(["other.db"])?;
    let before = cost(&site)?;
    assert_eq!(proposed(&before, "dbs[1]").count(), 2, "{before}");
    let databases = before["figures"]["databases"].as_array();
    let lost: Vec<_> = databases.into_iter().flatten().collect();
    assert_eq!(lost.len(), 2, "{before}");
    assert!(
        lost.iter().all(|one| one["may_be_lost_s"] == 2.0),
        "{before}"
    );
    take(&mut site, &before)?;
    assert_eq!(cost(&site)?["outcome"], "pass");
    Ok(())
}

#[test]
fn a_litestream_that_can_not_be_asked_may_lose_more_than_the_rpo_allows() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-alone")?;
    let file = site.root().join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    let (_, databases) = text.split_once("dbs:").ok_or("no databases")?;
    let slow = databases.replace("replica:", "monitor-interval: 10m\n    replica:");
    let slow = slow.replace("type: s3", "type: s3\n      sync-interval: 20s");
    fs::write(&file, format!("dbs:{slow}"))?;
    let found = cost(&site)?;
    assert_eq!(found["outcome"], "warn", "{found}");
    let detail = found["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("620 s may be lost, because"), "{found}");
    assert!(detail.contains("rpo asks for 36 s"), "{found}");
    take(&mut site, &found)?;
    let found = cost(&site)?;
    assert_eq!(found["figures"]["may_be_lost_s"], 36.0, "{found}");
    Ok(())
}

/// Nobody can ask for what those lines have Litestream not do by itself.
#[test]
fn cheaper_lines_bring_a_control_socket_where_there_is_none() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-deaf")?;
    let file = site.root().join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    let (_, databases) = text.split_once("dbs:").ok_or("no databases")?;
    fs::write(&file, format!("dbs:{databases}"))?;
    let found = cost(&site)?;
    assert_eq!(found["outcome"], "warn", "{found}");
    assert_eq!(found["figures"]["may_be_lost_s"], 2.0, "{found}");
    let mut lines = proposed(&found, "");
    assert!(lines.any(|line| line.contains("enabled: true")), "{found}");
    take(&mut site, &found)?;
    let found = cost(&site)?;
    assert_eq!(found["figures"]["may_be_lost_s"], 36.0, "{found}");
    Ok(())
}

/// edgerepl holds back what it asks for, and nothing that Litestream does by itself.
#[test]
fn a_metered_line_and_a_litestream_that_waits_for_nobody_contradict_each_other() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-metered")?;
    let before = cost(&site)?;
    take(&mut site, &before)?;
    site.set("replication", "metered", "true");
    let waits = cost(&site)?;
    assert_eq!(waits["outcome"], "pass", "{waits}");
    // Each hour, not each 30 s.
    assert_eq!(waits["figures"]["may_be_lost_s"], 3600.0, "{waits}");
    let puts = waits["figures"]["requests_a_month"]["idle"]["put"].as_f64();
    assert!(puts.is_some_and(|puts| puts < 4000.0), "{waits}");
    site.set("replication", "metered", "\"auto\"");
    let at_times = cost(&site)?;
    let lost = |key: &str| at_times["figures"][key].as_f64();
    assert_eq!(lost("may_be_lost_s"), Some(36.0), "{at_times}");
    assert_eq!(lost("may_be_lost_metered_s"), Some(3600.0), "{at_times}");
    site.set("replication", "metered", "true");
    let file = site.root().join("litestream.yml");
    let text = fs::read_to_string(&file)?;
    assert!(text.contains("monitor-interval: 3600s"), "{text}");
    fs::write(
        &file,
        text.replace("monitor-interval: 3600s", "monitor-interval: 600s"),
    )?;
    let in_vain = cost(&site)?;
    assert_eq!(in_vain["outcome"], "warn", "{in_vain}");
    let detail = in_vain["detail"].as_str().unwrap_or_default();
    assert!(detail.contains("metered holds back nothing"), "{in_vain}");
    let mut lines = proposed(&in_vain, "dbs[0]");
    assert!(
        lines.any(|line| line == "monitor-interval: 3600s"),
        "{in_vain}"
    );
    site.set("replication", "metered", "false");
    assert_eq!(cost(&site)?["outcome"], "pass");
    Ok(())
}

#[test]
fn what_is_paid_is_a_setting() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let mut site = device(&lab, "cost-prices")?;
    for (key, price) in [("put", "0"), ("get", "0.0"), ("gigabyte", "0")] {
        site.set("cost", key, price);
    }
    let free = cost(&site)?;
    assert_eq!(free["outcome"], "pass", "nothing is saved: {free}");
    assert_eq!(dollars(&free, "busy"), 0.0);
    site.set("cost", "gigabyte", "2.5");
    let metered = cost(&site)?;
    let line = bytes(&metered, "busy") / 1e9 * 2.5;
    assert!((dollars(&metered, "busy") - line).abs() < 0.01 * line);
    assert_eq!(metered["outcome"], "warn", "{metered}");
    site.set("cost", "gigabyte", "0");
    site.set("cost", "put", "1");
    let counts = &free["figures"]["requests_a_month"]["busy"];
    let count = |class: &str| counts[class].as_f64().unwrap_or_default();
    let millions = (count("put") + count("list")) / 1e6;
    assert!((dollars(&cost(&site)?, "busy") - millions).abs() < 0.01 * millions);
    Ok(())
}

fn device(lab: &Lab, name: &str) -> Outcome<Site> {
    let device = lab.provision_pem(KeyKind::EcdsaP256, name)?;
    Ok(Site::new(lab, device, tools::edgerepl()?)?)
}

fn cost(site: &Site) -> Outcome<Value> {
    let report = report(&site.run(&["check", "--json"])?)?;
    let cost = checks(&report).find(|check| check["name"] == "cost");
    Ok(cost.ok_or("nothing is said of the cost")?.clone())
}

fn dollars(cost: &Value, load: &str) -> f64 {
    let month = &cost["figures"]["requests_a_month"][load];
    month["us_dollars"].as_f64().unwrap_or(f64::NAN)
}

fn bytes(cost: &Value, load: &str) -> f64 {
    let classes = cost["figures"]["bytes_a_month"][load].as_object();
    let classes = classes.into_iter().flatten();
    classes.filter_map(|(_, bytes)| bytes.as_f64()).sum()
}

/// The lines for a place; nothing is the top of Litestream's file.
fn proposed<'a>(cost: &'a Value, place: &str) -> impl Iterator<Item = &'a str> {
    let all = cost["proposal"].as_array().into_iter().flatten();
    let own = all.filter(move |one| one["place"].as_str().unwrap_or_default() == place);
    own.flat_map(|one| one["lines"].as_array().into_iter().flatten())
        .filter_map(Value::as_str)
}

/// Writes the lines as an operator would.
fn take(site: &mut Site, cost: &Value) -> Outcome {
    let file = site.root().join("litestream.yml");
    let of_file = |place: &Value| match place.as_str() {
        Some("[heartbeat]") => site.config(),
        _ => file.clone(),
    };
    for one in cost["proposal"].as_array().into_iter().flatten() {
        let named = one["file"].as_str().unwrap_or_default();
        assert_eq!(named, of_file(&one["place"]).display().to_string());
    }
    let mut text: String = proposed(cost, "").map(|line| format!("{line}\n")).collect();
    let mut number = 0;
    for line in fs::read_to_string(&file)?.lines() {
        text += &format!("{line}\n");
        if line.starts_with("  - path:") {
            let place = format!("dbs[{number}]");
            let lines = proposed(cost, &place);
            text.extend(lines.map(|line| format!("    {line}\n")));
            number += 1;
        }
    }
    fs::write(&file, text)?;
    for line in proposed(cost, "[heartbeat]") {
        let (key, value) = line.split_once(" = ").ok_or("no key")?;
        site.set("heartbeat", key, value);
    }
    Ok(())
}
