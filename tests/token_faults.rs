//! The fault matrix: every function that edgerepl calls of a PKCS#11 module, times everything that it
//! may answer, or that it does instead of answering.
//!
//! A fetch with a fault that lasts ends in the right class; with one that passes it succeeds at once
//! where opening everything anew is a cure. A daemon gets credentials again once a fault has gone.

mod common;

use std::error::Error;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Outcome, failures, granted, lab, request, site};
use edgerepl::credentials::wire::Reply;
use edgerepl::credentials::{FailureClass, FetchFailure};
use edgerepl_lab::{Device, FaultyToken, Handshake, Lab, tools};
use nix::sys::signal::Signal;
use serde_json::Value;

/// All that is called between loading a module and unloading it.
const FUNCTIONS: [&str; 14] = [
    "C_GetFunctionList",
    "C_Initialize",
    "C_GetSlotList",
    "C_GetTokenInfo",
    "C_OpenSession",
    "C_Login",
    "C_FindObjectsInit",
    "C_FindObjects",
    "C_FindObjectsFinal",
    "C_GetAttributeValue",
    "C_SignInit",
    "C_Sign",
    "C_CloseSession",
    "C_Finalize",
];

/// What modules are known to answer, by number and as messages have it.
const CODES: [(u64, &str, Kind); 34] = [
    (0x02, "CKR_HOST_MEMORY", Kind::Passing),
    (0x03, "CKR_SLOT_ID_INVALID", Kind::Passing),
    (0x05, "CKR_GENERAL_ERROR", Kind::Passing),
    (0x06, "CKR_FUNCTION_FAILED", Kind::Passing),
    (0x07, "CKR_ARGUMENTS_BAD", Kind::Lasting),
    (0x0a, "CKR_CANT_LOCK", Kind::Lasting),
    (0x30, "CKR_DEVICE_ERROR", Kind::Passing),
    (0x31, "CKR_DEVICE_MEMORY", Kind::Lasting),
    (0x32, "CKR_DEVICE_REMOVED", Kind::Passing),
    (0x54, "CKR_FUNCTION_NOT_SUPPORTED", Kind::Unfit),
    (0x60, "CKR_KEY_HANDLE_INVALID", Kind::Passing),
    (0x62, "CKR_KEY_SIZE_RANGE", Kind::Unfit),
    (0x63, "CKR_KEY_TYPE_INCONSISTENT", Kind::Unfit),
    (0x68, "CKR_KEY_FUNCTION_NOT_PERMITTED", Kind::Unfit),
    (0x70, "CKR_MECHANISM_INVALID", Kind::Unfit),
    (0x71, "CKR_MECHANISM_PARAM_INVALID", Kind::Unfit),
    (0x82, "CKR_OBJECT_HANDLE_INVALID", Kind::Passing),
    (0x90, "CKR_OPERATION_ACTIVE", Kind::Passing),
    (0xa0, "CKR_PIN_INCORRECT", Kind::Pin),
    (0xa1, "CKR_PIN_INVALID", Kind::Pin),
    (0xa2, "CKR_PIN_LEN_RANGE", Kind::Pin),
    (0xa3, "CKR_PIN_EXPIRED", Kind::Pin),
    (0xa4, "CKR_PIN_LOCKED", Kind::Pin),
    (0xb0, "CKR_SESSION_CLOSED", Kind::Passing),
    (0xb1, "CKR_SESSION_COUNT", Kind::Lasting),
    (0xb3, "CKR_SESSION_HANDLE_INVALID", Kind::Passing),
    (0xe0, "CKR_TOKEN_NOT_PRESENT", Kind::Passing),
    (0xe1, "CKR_TOKEN_NOT_RECOGNIZED", Kind::Passing),
    (0x100, "CKR_USER_ALREADY_LOGGED_IN", Kind::Lasting),
    (0x101, "CKR_USER_NOT_LOGGED_IN", Kind::Passing),
    (0x190, "CKR_CRYPTOKI_NOT_INITIALIZED", Kind::Passing),
    (0x191, "CKR_CRYPTOKI_ALREADY_INITIALIZED", Kind::Lasting),
    (0x1a0, "CKR_MUTEX_BAD", Kind::Lasting),
    (0x8000_0001, "CKR 0x80000001", Kind::Lasting),
];

/// What a code calls for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// To open everything anew, at once; and again later where that is no cure.
    Passing,
    /// To try again later.
    Lasting,
    /// To change the key, or the token: the key can't do what TLS asks of it.
    Unfit,
    /// Where it is about the PIN: to put another one into its file.
    Pin,
}

/// How a fetch has to end while the fault is there.
fn verdict(function: &str, kind: Kind) -> Result<(), FailureClass> {
    match (function, kind) {
        // Nothing depends on these any more.
        ("C_FindObjectsFinal" | "C_CloseSession" | "C_Finalize", _) => Ok(()),
        ("C_Login", Kind::Pin) => Err(FailureClass::WrongPin),
        (_, Kind::Unfit) => Err(FailureClass::Refused),
        _ => Err(FailureClass::Key),
    }
}

/// Whether the same fetch succeeds where only the first call of the function has the fault.
fn is_cured(function: &str, code: u64, kind: Kind) -> bool {
    verdict(function, kind).is_ok()
        || kind == Kind::Passing
        // Believed, and found to be untrue by the next call.
        || code == 0x191 && function == "C_Initialize"
}

#[test]
fn each_answer_of_each_function_ends_in_its_class() -> Outcome {
    let lab = lab(900)?;
    let next = AtomicUsize::new(0);
    let broken = Mutex::new(Vec::new());
    // Which function fails differs between neighbours, so that all workers are busy to the end.
    let cases: Vec<_> = CODES
        .iter()
        .flat_map(|code| FUNCTIONS.map(|function| (function, *code)))
        .collect();
    thread::scope(|scope| {
        for worker in 0..4 {
            let (lab, next, broken, cases) = (&lab, &next, &broken, &cases);
            scope.spawn(move || {
                let told = |what: String| {
                    broken
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(what);
                };
                let bench = match Bench::new(lab, &format!("matrix-{worker}")) {
                    Ok(bench) => bench,
                    Err(cause) => return told(cause.to_string()),
                };
                while let Some((function, code)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(cause) = bench.try_code(function, *code) {
                        told(format!("{function}, {}: {cause}", code.1));
                    }
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!(
        "fault matrix: {} functions x {} codes, each lasting and passing: {} cases, {} wrong",
        FUNCTIONS.len(),
        CODES.len(),
        2 * cases.len(),
        broken.len()
    );
    assert!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

/// What a fetch does not call: a key is made for a request, and a module says who made it for a check.
#[test]
fn each_answer_to_a_command_is_told_or_done_without() -> Outcome {
    let lab = lab(900)?;
    let (device, token) = lab.provision_faulty("commands")?;
    let site = site(&lab, &device)?;
    for (code, name, _) in CODES {
        token.forget_key()?;
        token.order(&format!("C_GenerateKeyPair {code:#x}"))?;
        let made = site.run(&["csr", "--generate"])?;
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert_eq!(made.status.code(), Some(1), "{name}: {said}");
        assert!(made.stdout.is_empty() && said.contains(name), "{said}");
        // Nothing is left that would be in the way.
        token.order("")?;
        let made = site.run(&["csr", "--generate"])?;
        let said = String::from_utf8_lossy(&made.stderr).into_owned();
        assert!(made.status.success(), "after {name}: {said}");

        token.order(&format!("C_GetInfo {code:#x}"))?;
        let report = site.run(&["check", "--json"])?;
        let report: Value = serde_json::from_slice(&report.stdout)?;
        let checks = report["checks"].as_array().cloned().unwrap_or_default();
        let check = checks.iter().find(|check| check["name"] == "token");
        let outcome = check.map_or(&Value::Null, |check| &check["outcome"]);
        assert_eq!(outcome, "pass", "{name}: {report:#}");
    }
    println!(
        "fault matrix of the commands: 2 functions x {} codes",
        CODES.len()
    );

    token.forget_key()?;
    token.order("C_GenerateKeyPair crash")?;
    let made = site.run(&["csr", "--generate"])?;
    assert!(!made.status.success() && made.stdout.is_empty());
    token.order("")?;
    assert!(site.run(&["csr", "--generate"])?.status.success());
    Ok(())
}

#[test]
fn a_corrupt_answer_is_not_believed() -> Outcome {
    let lab = lab(900)?;
    let bench = Bench::new(&lab, "corrupt")?;
    for (function, class) in [
        ("C_GetFunctionList", None),
        ("C_GetSlotList", Some(FailureClass::Key)),
        ("C_GetTokenInfo", Some(FailureClass::Key)),
        ("C_OpenSession", Some(FailureClass::Key)),
        ("C_FindObjectsInit", Some(FailureClass::Key)),
        ("C_FindObjects", Some(FailureClass::Key)),
        ("C_GetAttributeValue", Some(FailureClass::Key)),
        // The key is another certificate's, as far as anybody can see.
        ("C_Sign", Some(FailureClass::Refused)),
    ] {
        bench.token.order(&format!("{function} corrupt"))?;
        let outcome = bench.fetch()?;
        let found = outcome.as_ref().map(|o| o.as_ref().err().map(|f| f.class));
        match class {
            // A list of functions that is nowhere: who looks at it dies of it.
            None => assert!(outcome.is_none(), "{function}: {outcome:?}"),
            class => assert_eq!(found, Some(class), "{function}: {outcome:?}"),
        }
        bench.token.order("")?;
        assert!(matches!(bench.fetch()?, Some(Ok(()))), "after {function}");
    }
    // One bit, once: the second call of C_Sign is the first that makes a signature.
    bench.token.order("C_Sign corrupt 1")?;
    assert!(matches!(bench.fetch()?, Some(Ok(()))));
    // No server ever sees a signature that is wrong.
    let seen = lab.provider().connections();
    let refused = seen.iter().find(|connection| {
        matches!(&connection.handshake, Handshake::Failed(why) if why.contains("ignature"))
    });
    assert!(refused.is_none(), "{refused:?}");
    Ok(())
}

#[test]
fn one_signature_is_all_that_a_fetch_costs() -> Outcome {
    let lab = lab(900)?;
    let bench = Bench::new(&lab, "cost")?;
    assert!(matches!(bench.fetch()?, Some(Ok(()))));
    let calls = bench.token.calls();
    let count = |function: &str| calls.iter().filter(|call| *call == function).count();
    for (function, most) in [
        ("C_Initialize", 1),
        ("C_OpenSession", 1),
        ("C_Login", 1),
        ("C_FindObjectsInit", 1),
        ("C_SignInit", 1),
        ("C_CloseSession", 1),
        ("C_Finalize", 1),
    ] {
        assert_eq!(count(function), most, "{function}: {calls:?}");
    }
    // An ATECC608 asks for no PIN: it is not offered one.
    bench.token.ask_for_no_pin()?;
    assert!(matches!(bench.fetch()?, Some(Ok(()))));
    assert_eq!(bench.token.calls_of("C_Login"), 1);
    println!("a fetch calls {calls:?}");
    Ok(())
}

#[test]
fn a_daemon_gets_credentials_again_once_the_fault_has_gone() -> Outcome {
    // A daemon for each, for most of the time goes by with waiting.
    let faults = [
        ("C_GetFunctionList 0x5", "key"),
        ("C_Initialize 0x2", "key"),
        ("C_Initialize crash", "key"),
        ("C_GetTokenInfo 0x30", "key"),
        ("C_Login 0x30", "key"),
        ("C_FindObjects hang", "key"),
        ("C_GetAttributeValue crash", "key"),
        ("C_Sign 0x30", "key"),
        ("C_Sign crash", "key"),
        ("C_Sign hang", "key"),
        ("C_Sign corrupt", "refused"),
        ("C_SignInit 0x70", "refused"),
    ];
    let lab = lab(900)?;
    let waits = thread::scope(|scope| {
        let lives: Vec<_> = faults
            .iter()
            .enumerate()
            .map(|(number, (order, class))| {
                let lab = &lab;
                scope.spawn(move || {
                    let outcome = live_through(lab, number, order, class);
                    outcome.map_err(|cause| format!("{order}: {cause}"))
                })
            })
            .collect();
        lives
            .into_iter()
            .map(|life| {
                life.join()
                    .unwrap_or_else(|_| Err("it panicked".to_owned()))
            })
            .collect::<Result<Vec<_>, String>>()
    })?;
    let mut waits = waits;
    waits.sort_unstable();
    println!(
        "from the end of {} faults to credentials: median {:.1} s, maximum {:.1} s",
        waits.len(),
        waits[waits.len() / 2].as_secs_f32(),
        waits[waits.len() - 1].as_secs_f32()
    );
    Ok(())
}

/// The time from the fault's end to credentials.
fn live_through(
    lab: &Lab,
    number: usize,
    order: &str,
    class: &str,
) -> Result<Duration, Box<dyn Error>> {
    let (device, token) = lab.provision_faulty(&format!("daemon-{number}"))?;
    token.order(order)?;
    let site = site(lab, &device)?;
    let mut daemon = site.start()?;
    let status = daemon.wait_for("failure", LIMIT, |s| failures(s, class) > 0)?;
    let problem = status["problems"][0].as_str().unwrap_or_default();
    if problem.is_empty() {
        return Err(format!("nothing is said of it: {status:#}").into());
    }
    token.order("")?;
    let begun = Instant::now();
    daemon.wait_for("credentials", LIMIT, |s| granted(s) == 1)?;
    Ok(begun.elapsed())
}

#[test]
fn a_wrong_pin_is_offered_once_whoever_asks_and_however_often() -> Outcome {
    let lab = lab(900)?;
    let (device, token) = lab.provision_faulty("wrong-pin")?;
    let right = std::fs::read(token.pin_file())?;
    std::fs::write(token.pin_file(), "0000\n")?;
    let site = site(&lab, &device)?;
    for _ in 0..2 {
        let mut daemon = site.start()?;
        let status = daemon.wait_for("refused PIN", LIMIT, |s| failures(s, "wrong_pin") > 0)?;
        let problem = status["problems"][0].as_str().unwrap_or_default();
        assert!(problem.contains("refused"), "{status:#}");
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for("another look", LIMIT, |s| failures(s, "wrong_pin") > 1)?;
        let check = site.run(&["check", "--online", "--json"])?;
        let report = String::from_utf8_lossy(&check.stdout).into_owned();
        assert!(report.contains("was refused before"), "{report}");
    }
    assert_eq!(token.wrong_pins(), 1);
    assert_eq!(token.calls_of("C_Login"), 1);

    // Another wrong one is another try, and the last that edgerepl makes before the lock.
    let mut daemon = site.start()?;
    // It listens to signals from then on.
    daemon.wait_for("a first look", LIMIT, |s| failures(s, "wrong_pin") > 0)?;
    std::fs::write(token.pin_file(), "1111")?;
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for("refused PIN", LIMIT, |s| failures(s, "wrong_pin") > 1)?;
    assert_eq!(token.wrong_pins(), 2);
    std::fs::write(token.pin_file(), "2222")?;
    daemon.signal(Signal::SIGHUP);
    let status = daemon.wait_for("the end of tries", LIMIT, |s| {
        s["problems"][0]
            .as_str()
            .is_some_and(|p| p.contains("one try left"))
    })?;
    assert_eq!(token.wrong_pins(), 2, "{status:#}");

    // A person logs in by hand; then the file is mended, and found so without a word to the daemon.
    token.forget_wrong_pins()?;
    std::fs::write(token.pin_file(), right)?;
    daemon.wait_for("credentials", LIMIT, |s| granted(s) == 1)?;
    Ok(())
}

#[test]
fn a_wrong_pin_is_offered_once_by_all_who_ask_at_once() -> Outcome {
    let lab = lab(900)?;
    let bench = Bench::new(&lab, "at-once")?;
    // Each thinks that nothing was refused yet, and waits for its turn there.
    bench.token.order("C_OpenSession delay")?;
    std::fs::write(bench.token.pin_file(), "0000")?;
    thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| bench.fetch().ok())).collect();
        for outcome in asked
            .into_iter()
            .map(|one| one.join().ok().flatten().flatten())
        {
            let class = outcome.and_then(|o| o.err().map(|failure| failure.class));
            assert_eq!(class, Some(FailureClass::WrongPin));
        }
    });
    assert_eq!(bench.token.calls_of("C_OpenSession"), 3);
    assert_eq!(bench.token.wrong_pins(), 1);
    Ok(())
}

/// A device with a faulty token, and fetches for it.
struct Bench {
    token: FaultyToken,
    device: Device,
    request: String,
}

impl Bench {
    fn new(lab: &Lab, thing_name: &str) -> Outcome<Self> {
        let (device, token) = lab.provision_faulty(thing_name)?;
        let refused_pin = token.pin_file().with_file_name("refused-pin");
        let request = request(lab, &device, refused_pin)?;
        Ok(Self {
            token,
            device,
            request: request.to_json(),
        })
    }

    /// Two cases: the fault that is there for good, and the one of the first call alone.
    fn try_code(&self, function: &str, (code, name, kind): (u64, &str, Kind)) -> Outcome {
        let expected = verdict(function, kind);
        self.token.order(&format!("{function} {code:#x}"))?;
        let found = self.fetch()?.ok_or("the fetch has no answer")?;
        let class = found.as_ref().err().map(|failure| failure.class);
        if class != expected.err() {
            return Err(format!("{expected:?} was due: {found:?}").into());
        }
        if let Err(failure) = &found
            && !names_the_cause(failure, function, name, code)
        {
            return Err(format!("the message names neither: {failure:?}").into());
        }
        // A PIN that was "refused" is the right one.
        let _ = std::fs::remove_file(self.token.pin_file().with_file_name("refused-pin"));

        self.token.order(&format!("{function} {code:#x} 0"))?;
        let found = self.fetch()?.ok_or("the fetch has no answer")?;
        if found.is_ok() != is_cured(function, code, kind) {
            return Err(format!("a first call alone: {found:?}").into());
        }
        let _ = std::fs::remove_file(self.token.pin_file().with_file_name("refused-pin"));
        self.token.order("")?;
        Ok(())
    }

    /// What a fetch comes to; `None` where its process dies without an answer.
    fn fetch(&self) -> Outcome<Option<Result<(), FetchFailure>>> {
        let mut child = Command::new(tools::edgerepl()?)
            .arg("fetch")
            .envs(self.device.env.iter().map(|(name, value)| (name, value)))
            .env("RUST_LOG", "off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            pipe.write_all(self.request.as_bytes())?;
        }
        let output = child.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().map(Reply::parse).transpose();
        Ok(match last.map_err(|failure| failure.message)? {
            Some(Reply::Granted(_)) => Some(Ok(())),
            Some(Reply::Failed(failure)) => Some(Err(failure)),
            Some(Reply::Stage(_)) | None => None,
        })
    }
}

/// Whether who reads it learns which call failed, and how. A session that was not logged in shows no
/// private key, and one that believes an untrue word is told by the next call.
fn names_the_cause(failure: &FetchFailure, function: &str, name: &str, code: u64) -> bool {
    let says = |words: &str| failure.message.contains(words);
    match (function, code) {
        ("C_Login", 0x100) => says("has no private key"),
        ("C_Login", 0xa3) => says("has expired"),
        ("C_Login", 0xa4) => says("is locked"),
        ("C_Login", 0xa0..=0xa2) => says(name),
        ("C_Initialize", 0x191) => says("CKR_CRYPTOKI_NOT_INITIALIZED"),
        _ => says(name) && says(&format!("from {function}")),
    }
}
