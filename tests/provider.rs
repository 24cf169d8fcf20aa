//! A running daemon whose credential provider fails: good credentials stay in use, Litestream keeps
//! running undisturbed, what failed is named, and renewal recovers by itself.

mod common;

use std::thread;
use std::time::{Duration, SystemTime};

use common::{LIMIT, Outcome, failures, granted, lab, replicates, site};
use edgerepl_lab::{
    Behaviour, Daemon, DateHeader, Device, Door, KeyKind, Lab, ServerCertificate, odd_answers,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// What breaks a renewal: its name, the failure's class, and how it is brought about.
type Fault = (&'static str, &'static str, fn(&Lab, &Device) -> Outcome);

#[test]
fn an_unreachable_provider_disturbs_nothing() -> Outcome {
    survives(&[
        ("closed port", "transient", |lab, _| {
            Ok(lab.provider().set_listening(false)?)
        }),
        ("slammed door", "transient", |lab, _| {
            lab.provider().set_door(Door::Slammed);
            Ok(())
        }),
        ("silent door", "transient", |lab, _| {
            lab.provider().set_door(Door::Silent);
            Ok(())
        }),
        ("no answer", "transient", |lab, _| {
            lab.provider().set_behaviour(Behaviour::Hang);
            Ok(())
        }),
    ])
}

#[test]
fn a_provider_that_lies_disturbs_nothing() -> Outcome {
    survives(&[
        ("redirection", "transient", |lab, _| {
            let to = "https://other.invalid/".to_owned();
            lab.provider().set_behaviour(Behaviour::Redirect(to));
            Ok(())
        }),
        ("body cut short", "transient", |lab, _| {
            lab.provider().set_behaviour(Behaviour::CloseMidBody);
            Ok(())
        }),
        ("not HTTP", "transient", |lab, _| odd(lab, "not HTTP")),
        ("captive portal", "transient", |lab, _| {
            odd(lab, "captive portal")
        }),
        ("endless body", "transient", |lab, _| {
            odd(lab, "endless chunked body")
        }),
        ("expired grant", "transient", |lab, _| {
            odd(lab, "expired an hour ago")
        }),
        ("injected line", "transient", |lab, _| {
            odd(lab, "secret with a line of its own")
        }),
        ("lifetime beyond AWS's", "transient", |lab, _| {
            let off = Behaviour::WrongDate(DateHeader::Off(-20 * 3600));
            lab.provider().set_behaviour(off);
            Ok(())
        }),
        ("overload", "transient", |lab, _| {
            lab.provider()
                .set_behaviour(Behaviour::status(503, "Service Unavailable"));
            Ok(())
        }),
    ])
}

#[test]
fn a_certificate_that_does_not_pass_disturbs_nothing() -> Outcome {
    survives(&[
        ("wrong name", "transient", |lab, _| {
            shows(lab, ServerCertificate::WrongName)
        }),
        ("wrong CA", "transient", |lab, _| {
            shows(lab, ServerCertificate::WrongCa)
        }),
        ("expired", "transient", |lab, _| {
            shows(lab, ServerCertificate::Expired)
        }),
        ("not yet valid", "clock_not_set", |lab, _| {
            shows(lab, ServerCertificate::NotYetValid)
        }),
    ])
}

#[test]
fn a_refusal_is_named_and_repeated_slowly() -> Outcome {
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "refused")?;
    let site = site(&lab, &device)?;
    let refuse = |code, message| {
        lab.provider()
            .set_behaviour(Behaviour::status(code, message));
    };
    refuse(403, "Access Denied");
    let mut daemon = site.start()?;
    let faults: [(&str, &str, &dyn Fn()); 4] = [
        ("403", "iot:AssumeRoleWithCertificate", &|| {}),
        ("404", "credentials.role_alias", &|| {
            refuse(404, "Role alias does not exist");
        }),
        ("400", "trust policy", &|| {
            let unassumable = "Unable to assume the role, or the role to assume does not exist";
            refuse(400, unassumable);
        }),
        ("revoked", "deactivated", &|| lab.revoke(&device)),
    ];
    for (number, (name, step, begin)) in faults.into_iter().enumerate() {
        begin();
        if number > 0 {
            daemon.signal(Signal::SIGHUP);
        }
        let count = number as u64 + 1;
        let status = daemon.wait_for(name, LIMIT, |s| failures(s, "refused") == count)?;
        assert_eq!(status["state"], "unhealthy", "{name}");
        let problem = status["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains(step), "{name}: {status:#}");
        let wait = status["credentials"]["renewal_in_s"].as_f64();
        assert!(wait > Some(25.0), "{name}: {status:#}");
    }
    lab.register(&device);
    lab.provider().set_behaviour(Behaviour::Normal);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("health", LIMIT, |s| s["state"] == "healthy")?;
    Ok(())
}

#[test]
fn retry_after_is_honoured_as_seconds_and_as_a_date() -> Outcome {
    const ASKED: Duration = Duration::from_secs(9);
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "patient")?;
    let site = site(&lab, &device)?;
    let overloaded = |code, retry_after| Behaviour::Status {
        code,
        message: "Slow down".to_owned(),
        retry_after: Some(retry_after),
    };
    lab.provider()
        .push_once(overloaded(429, ASKED.as_secs().to_string()));
    let mut daemon = site.start()?;
    daemon.wait_for("failure", LIMIT, |s| failures(s, "transient") == 1)?;
    // Counted from the answer, which comes when the first wait is over: a second is cut off by the
    // date's form, and one more by the answer's own date.
    let second = SystemTime::now() + 2 * ASKED + Duration::from_secs(2);
    lab.provider()
        .push_once(overloaded(503, http_date(second)?));
    daemon.wait_for("grant", LIMIT, |s| granted(s) == 1)?;
    let asked: Vec<_> = lab.provider().requests().iter().map(|r| r.at).collect();
    assert_eq!(asked.len(), 3);
    for pair in asked.windows(2) {
        let waited = pair[1] - pair[0];
        assert!(waited >= ASKED - Duration::from_secs(1), "{asked:?}");
    }
    Ok(())
}

#[test]
fn an_outage_longer_than_the_credentials_live_loses_no_row() -> Outcome {
    let lab = lab(9)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "cut-off")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    lab.provider().set_listening(false)?;
    let status = daemon.wait_for("end of the credentials", LIMIT, |s| {
        s["credentials"]["valid"] == false
    })?;
    assert!(failures(&status, "transient") >= 1, "{status:#}");
    assert_eq!(status["state"], "unhealthy", "{status:#}");
    let problem = status["problems"][0].as_str().unwrap_or_default();
    assert!(problem.contains("cannot be reached"), "{status:#}");
    let rows = status["heartbeat"]["rows"].as_u64();
    daemon.wait_for("more rows", LIMIT, |s| {
        s["heartbeat"]["rows"].as_u64() > rows.map(|r| r + 4)
    })?;
    lab.provider().set_listening(true)?;
    daemon.wait_for_rotations(1, LIMIT)?;
    let log = daemon.log();
    let ended = daemon.terminate()?;
    assert!(ended.success(), "{ended}");
    let comparison = site.compare(&lab)?;
    assert!(comparison.is_equal(), "{comparison:?}; the log:\n{log}");
    Ok(())
}

#[test]
fn a_slow_answer_is_waited_for_and_its_time_counts() -> Outcome {
    let lab = lab(600)?;
    lab.provider()
        .set_behaviour(Behaviour::Slow(Duration::from_secs(5)));
    let device = lab.provision_pem(KeyKind::EcdsaP256, "slow")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("grant", LIMIT, |s| granted(s) == 1)?;
    // Counted from the question, or a lease would seem to outlive what the server grants.
    let left = status["credentials"]["expires_in_s"].as_f64();
    assert!(left < Some(595.5), "{status:#}");
    assert_eq!(failures(&status, "transient"), 0);
    Ok(())
}

#[test]
fn a_clock_that_is_not_set_is_no_failure_of_the_device() -> Outcome {
    let lab = lab(600)?;
    shows(&lab, ServerCertificate::NotYetValid)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "no-clock")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    // Twice: the second is no later for the first.
    for count in 1..=2 {
        let status =
            daemon.wait_for("attempt", LIMIT, |s| failures(s, "clock_not_set") == count)?;
        let wait = status["credentials"]["renewal_in_s"].as_f64();
        assert!(wait <= Some(10.0), "{status:#}");
        let problem = status["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains("clock"), "{status:#}");
    }
    shows(&lab, ServerCertificate::Good)?;
    daemon.wait_for("health", LIMIT, |s| s["state"] == "healthy")?;
    Ok(())
}

#[test]
fn a_lifetime_does_not_depend_on_the_devices_clock() -> Outcome {
    const YEAR: i64 = 365 * 86_400;
    let lab = lab(600)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "wrong-year")?;
    let site = site(&lab, &device)?;
    // Back first: once a later time was vouched for, none before it is believed.
    lab.provider().set_clock_offset(-3 * YEAR);
    let mut daemon = site.start()?;
    for (offset, grants) in [(-3 * YEAR, 1), (3 * YEAR, 2)] {
        lab.provider().set_clock_offset(offset);
        if grants > 1 {
            daemon.signal(Signal::SIGHUP);
        }
        let status = daemon.wait_for("replication", LIMIT, |s| {
            granted(s) == grants && replicates(s)
        })?;
        let left = status["credentials"]["expires_in_s"].as_f64();
        assert!(left > Some(400.0) && left <= Some(600.0), "{status:#}");
        assert_eq!(status["state"], "unhealthy", "{status:#}");
        let problem = status["problems"][0].as_str().unwrap_or_default();
        assert!(
            problem.contains("clock") && problem.contains(" off "),
            "{status:#}"
        );
    }
    lab.provider().set_clock_offset(0);
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("health", LIMIT, |s| {
        granted(s) == 3 && s["state"] == "healthy"
    })?;
    Ok(())
}

#[test]
fn one_wrong_date_costs_no_more_than_itself() -> Outcome {
    const YEAR: i64 = 365 * 86_400;
    let lab = lab(600)?;
    // AWS's certificates end within 13 months: a clock that is ahead by more must not matter.
    shows(&lab, ServerCertificate::Usual)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "misled")?;
    let mut site = site(&lab, &device)?;
    let state = site.root().join("state");
    std::fs::create_dir(&state)?;
    site.set_env("STATE_DIRECTORY", state.display().to_string());
    // What an earlier version was misled to write.
    std::fs::write(state.join("last-good-time"), "2099-01-01T00:00:00Z\n")?;
    for offset in [5 * YEAR, 50 * YEAR] {
        lab.provider().set_clock_offset(offset);
        let mut daemon = site.start()?;
        daemon.wait_for("a grant by a wrong clock", LIMIT, |s| granted(s) == 1)?;
        lab.provider().set_clock_offset(0);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("the first right answer", LIMIT, |s| {
            granted(s) == 2 && s["state"] == "healthy"
        })?;
        daemon.terminate()?;
        let mut daemon = site.start()?;
        daemon.wait_for("health after a restart", LIMIT, |s| {
            granted(s) == 1 && s["state"] == "healthy"
        })?;
        daemon.terminate()?;
    }
    Ok(())
}

/// Puts daemons with good credentials through the faults, a few each, for after many in a row the next
/// attempt is minutes away.
fn survives(faults: &[Fault]) -> Outcome {
    thread::scope(|scope| {
        let daemons: Vec<_> = faults
            .chunks(3)
            .map(|few| scope.spawn(|| survives_each(few).map_err(|e| e.to_string())))
            .collect();
        for daemon in daemons {
            daemon.join().map_err(|_| "a fault was not survived")??;
        }
        Ok(())
    })
}

/// Puts one through each fault, and then lets it recover by itself.
fn survives_each(faults: &[Fault]) -> Outcome {
    let lab = lab(900)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "steadfast")?;
    let site = site(&lab, &device)?;
    let mut daemon = site.start()?;
    let before = daemon.wait_for("health", LIMIT, |s| {
        s["state"] == "healthy" && replicates(s)
    })?;
    let mut counted = 0;
    for (name, class, begin) in faults {
        mend(&lab)?;
        begin(&lab, &device)?;
        // Asked for, since the first renewal would come too late for a test.
        daemon.signal(Signal::SIGHUP);
        let seen = |s: &Value| failures(s, class) + other_failures(s, class);
        let after = daemon.wait_for(name, LIMIT, |s| seen(s) > counted)?;
        counted = seen(&after);
        assert_eq!(
            after["credentials"]["last_failure"]["class"], *class,
            "{name}: {after:#}"
        );
        assert_undisturbed(name, &before, &after);
    }
    let last = faults.last().map(|(name, ..)| *name).unwrap_or_default();
    goes_on(last, &before, &mut daemon)?;
    mend(&lab)?;
    let recovered = daemon.wait_for("recovery", LIMIT, |s| {
        s["state"] == "healthy" && replicates(s) && granted(s) == 2
    })?;
    assert_eq!(recovered["replication"]["rotations"], 1, "{recovered:#}");
    Ok(())
}

/// The credentials in force still are, and Litestream is the process that it was.
fn assert_undisturbed(name: &str, before: &Value, after: &Value) {
    assert_eq!(after["credentials"]["valid"], true, "{name}: {after:#}");
    assert_eq!(granted(after), 1, "{name}: {after:#}");
    for part in ["pid", "starts", "rotations", "activity"] {
        let (before, now) = (&before["replication"][part], &after["replication"][part]);
        assert_eq!(now, before, "{name}: {after:#}");
    }
}

/// Rows are still written, and what was written before the fault was over is replicated.
fn goes_on(name: &str, before: &Value, daemon: &mut Daemon) -> Outcome {
    let rows = |s: &Value| s["heartbeat"]["rows"].as_u64().unwrap_or_default();
    let enough = rows(before) + 3;
    let after = daemon.wait_for("more rows", LIMIT, |s| rows(s) > enough)?;
    assert_undisturbed(name, before, &after);
    Ok(())
}

fn mend(lab: &Lab) -> Outcome {
    let provider = lab.provider();
    provider.set_door(Door::Open);
    provider.set_behaviour(Behaviour::Normal);
    provider.set_server_certificate(ServerCertificate::Good);
    Ok(provider.set_listening(true)?)
}

fn shows(lab: &Lab, certificate: ServerCertificate) -> Outcome {
    lab.provider().set_server_certificate(certificate);
    Ok(())
}

fn odd(lab: &Lab, name: &str) -> Outcome {
    let row = odd_answers().into_iter().find(|row| row.name == name);
    let row = row.ok_or_else(|| format!("no odd answer is called {name:?}"))?;
    lab.provider().set_behaviour(row.behaviour);
    Ok(())
}

/// Failures of all classes but one.
fn other_failures(status: &Value, class: &str) -> u64 {
    let all = status["credentials"]["failures"].as_object();
    let others = all.into_iter().flatten().filter(|(name, _)| *name != class);
    others.filter_map(|(_, count)| count.as_u64()).sum()
}

/// The form of an HTTP date, which the program under test reads from the clock's own text form.
fn http_date(time: SystemTime) -> Outcome<String> {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let iso = edgerepl::clock::WallTime::from_unix(i64::try_from(seconds)?).to_string();
    let (date, clock) = iso.trim_end_matches('Z').split_once('T').ok_or("no time")?;
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month: usize = date[5..7].parse()?;
    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][(seconds / 86_400 % 7) as usize];
    let (year, day_of_month) = (&date[..4], &date[8..]);
    Ok(format!(
        "{day}, {day_of_month} {} {year} {clock} GMT",
        months[month - 1]
    ))
}
