//! One fetch, by the real fetch child: every kind of key over every version of TLS is granted
//! credentials, and no answer, certificate or redirection that a careful client would not believe
//! yields any.

mod common;

use std::error::Error;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, TcpListener};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use edgerepl::credentials::stage::Stage;
use edgerepl::credentials::wire::Reply;
use edgerepl::credentials::{FailureClass, FetchFailure, Grant};
use edgerepl_lab::{
    Behaviour, ClientSignatures, Device, Expected, KeyKind, Lab, LabOptions, OddAnswer,
    ServerCertificate, TlsVersions, odd_answers, tools,
};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[test]
fn each_key_in_each_place_over_each_tls_is_granted_credentials() -> Outcome {
    let lab = lab()?;
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let in_file = lab.provision_pem(kind, &format!("file-{kind:?}"))?;
        let in_token = lab.provision_token(kind, &format!("token-{kind:?}"))?;
        for device in [in_file, in_token] {
            for (versions, name) in [
                (TlsVersions::Tls12, "TLSv1_2"),
                (TlsVersions::Tls13, "TLSv1_3"),
            ] {
                lab.provider().set_tls_versions(versions);
                let case = format!("{} over {name}", device.thing_name);
                let grant = fetch(&lab, &device)?.granted(&case)?;
                let issued = lab.provider().issued().pop().ok_or("nothing was issued")?;
                assert_eq!(
                    grant.credentials.secret_access_key,
                    issued.secret_access_key
                );
                assert_eq!(grant.thing_name, device.thing_name, "{case}");
                let log = lab.provider().requests().pop().ok_or("no request")?;
                assert_eq!(log.tls_version, name, "{case}");
                let scheme = match kind {
                    KeyKind::EcdsaP256 => "ECDSA_NISTP256_SHA256",
                    KeyKind::Rsa2048 => "RSA_PSS_SHA",
                };
                assert!(log.signature_scheme.starts_with(scheme), "{case}: {log:?}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_rsa_key_also_signs_as_old_servers_ask() -> Outcome {
    let lab = lab()?;
    lab.provider().set_tls_versions(TlsVersions::Tls12);
    lab.provider()
        .set_client_signatures(ClientSignatures::RsaPkcs1);
    for device in [
        lab.provision_pem(KeyKind::Rsa2048, "file")?,
        lab.provision_token(KeyKind::Rsa2048, "token")?,
    ] {
        fetch(&lab, &device)?.granted(&device.thing_name)?;
        let log = lab.provider().requests().pop().ok_or("no request")?;
        assert_eq!(log.signature_scheme, "RSA_PKCS1_SHA256");
    }
    // A key that can't is told apart from a certificate that is refused.
    let other = lab.provision_pem(KeyKind::EcdsaP256, "other")?;
    let failure = fetch(&lab, &other)?.failed("ECDSA where RSA is asked for")?;
    assert_eq!(failure.class, FailureClass::Refused);
    assert!(
        failure.message.contains("accepts no signature"),
        "{failure:?}"
    );
    Ok(())
}

#[test]
fn no_odd_answer_is_believed_and_no_right_one_refused() -> Outcome {
    let (endless, prompt): (Vec<_>, Vec<_>) = odd_answers()
        .into_iter()
        .partition(|row| row.expected == Expected::TimedOut);
    let rows = endless.len() + prompt.len();
    // Those that end by the child's own limit only take 20 s each: all at once.
    let walks: Vec<_> = endless
        .into_iter()
        .map(|row| vec![row])
        .chain([prompt])
        .map(|rows| thread::spawn(|| walk(rows)))
        .collect();
    let mut walked = 0;
    for walk in walks {
        walked += walk.join().map_err(|_| "a walk panicked")??;
    }
    assert_eq!(walked, rows);
    println!("{walked} rows were walked");
    Ok(())
}

fn walk(rows: Vec<OddAnswer>) -> Outcome<usize> {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let walked = rows.len();
    for (number, row) in rows.into_iter().enumerate() {
        lab.provider().push_once(row.behaviour);
        let answer = fetch(&lab, &device)?;
        assert_eq!(
            lab.provider().connections().len(),
            number + 1,
            "{}",
            row.name
        );
        match row.expected {
            Expected::Accepted => {
                let grant = answer.granted(row.name)?;
                assert!(grant.lifetime > Duration::from_secs(600), "{}", row.name);
                assert!(grant.lifetime <= Duration::from_secs(5400), "{}", row.name);
            }
            Expected::Rejected | Expected::TimedOut => {
                let failure = answer.failed(row.name)?;
                assert_eq!(failure.class, FailureClass::Transient, "{}", row.name);
                // What was in the answer, secrets first of all, is not passed on.
                for part in ["wJalrXUtnFEMI", "IQoJb3JpZ2lu", "evil", "reboot", "log in"] {
                    assert!(!failure.message.contains(part), "{}: {failure:?}", row.name);
                }
                let timed_out = failure.message.contains("in time");
                let should_have = row.expected == Expected::TimedOut;
                assert_eq!(timed_out, should_have, "{}: {failure:?}", row.name);
            }
        }
    }
    Ok(walked)
}

#[test]
fn refusals_and_overload_are_told_apart_and_name_the_next_step() -> Outcome {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let (refused, transient) = (FailureClass::Refused, FailureClass::Transient);
    for (code, message, class, step) in [
        (
            400,
            "Unable to assume the role, or the role to assume does not exist",
            refused,
            "trust policy",
        ),
        (
            403,
            "Invalid thing name passed",
            refused,
            "attach-thing-principal",
        ),
        (
            403,
            "Access Denied",
            refused,
            "iot:AssumeRoleWithCertificate",
        ),
        (
            403,
            "Certificate is invalid on this endpoint",
            refused,
            "register and activate",
        ),
        (
            404,
            "Role alias does not exist",
            refused,
            "credentials.role_alias",
        ),
        (429, "Rate exceeded", transient, "429"),
        (500, "Internal Failure", transient, "500"),
        (503, "Service Unavailable", transient, "503"),
    ] {
        lab.provider().push_once(Behaviour::Status {
            code,
            message: message.to_owned(),
            retry_after: Some("7".to_owned()),
        });
        let failure = fetch(&lab, &device)?.failed(message)?;
        assert_eq!(failure.class, class, "{failure:?}");
        assert!(failure.message.contains(step), "{failure:?}");
        let wait = (class == transient).then_some(Duration::from_secs(7));
        assert_eq!(failure.retry_after, wait, "{failure:?}");
    }
    Ok(())
}

#[test]
fn a_server_that_is_not_the_right_one_gets_no_request() -> Outcome {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let transient = FailureClass::Transient;
    for (certificate, class, words) in [
        (ServerCertificate::WrongName, transient, "localhost"),
        (ServerCertificate::WrongCa, transient, "ca"),
        (ServerCertificate::Expired, transient, "was valid until"),
        (
            ServerCertificate::NotYetValid,
            FailureClass::ClockNotSet,
            "not set",
        ),
    ] {
        for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
            lab.provider().set_tls_versions(versions);
            lab.provider().set_server_certificate(certificate);
            let failure = fetch(&lab, &device)?.failed(&format!("{certificate:?}"))?;
            assert_eq!(failure.class, class, "{failure:?}");
            assert!(failure.message.contains(words), "{failure:?}");
        }
    }
    assert!(lab.provider().requests().is_empty());
    lab.provider()
        .set_server_certificate(ServerCertificate::Good);
    fetch(&lab, &device)?.granted("the right one")?;
    Ok(())
}

#[test]
fn no_time_is_believed_that_no_root_has_signed() -> Outcome {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let witness = lab.root().join("server.pem");
    let next_year = ServerCertificate::NotYetValid;
    let show = |certificate| lab.provider().set_server_certificate(certificate);

    // A device whose clock is a year behind: a certificate that passed in an earlier run vouches.
    show(next_year);
    let signed = lab.server_chain(next_year)?;
    let forged = Lab::start(LabOptions::default())?.server_chain(next_year)?;
    let (leaf, _) = signed.split_at(signed.len() / 2);
    for (content, what) in [
        ("2099-01-01T00:00:00Z\n", "a date"),
        (forged.as_str(), "another's chain"),
        (leaf, "a torn file"),
        (
            &lab.server_chain(ServerCertificate::WrongCa)?,
            "a stranger's chain",
        ),
        (
            &lab.server_chain(ServerCertificate::WrongName)?,
            "another host's",
        ),
    ] {
        fs::write(&witness, content)?;
        let failure = fetch(&lab, &device)?.failed(what)?;
        assert_eq!(
            failure.class,
            FailureClass::ClockNotSet,
            "{what}: {failure:?}"
        );
    }
    fs::write(&witness, &signed)?;
    fetch(&lab, &device)?.granted("a chain that the root signed")?;
    // What has expired by then is not believed again.
    show(ServerCertificate::Expired);
    fetch(&lab, &device)?.failed("an expired certificate")?;
    // None of this keeps the right server from being believed.
    for content in ["2099-01-01T00:00:00Z\n", forged.as_str(), leaf, &signed] {
        fs::write(&witness, content)?;
        show(ServerCertificate::Good);
        fetch(&lab, &device)?.granted(content)?;
    }
    Ok(())
}

#[test]
fn an_address_that_leads_nowhere_costs_no_credentials() -> Outcome {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let address = lab.provider().address();
    let silent = TcpListener::bind((Ipv6Addr::LOCALHOST, address.port()));
    let hosts = lab.root().join("hosts");
    fs::write(&hosts, "::1 localhost\n127.0.0.1 localhost\n")?;
    // A name with two addresses, by a file of hosts that this one process sees.
    let misled = || {
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
        command.arg(&hosts);
        command
    };
    let can = misled().args(["getent", "ahosts", "localhost"]).output();
    let can = can.is_ok_and(|output| output.stdout.starts_with(b"::1"));
    let (Ok(silent), true, true) = (silent, can, address.is_ipv4()) else {
        println!("skipped: only root, with unshare and IPv6, can give a process such a name");
        return Ok(());
    };
    let fetch = |what| {
        let mut command = misled();
        command.arg(tools::edgerepl()?);
        fetch_by(command, &lab, &device)?.granted(what)
    };
    // It takes TCP by its queue, and then says nothing: as a path does that drops large packets.
    fetch("a silent address")?;
    silent.set_nonblocking(true)?;
    assert!(silent.accept().is_ok(), "it was not tried first");
    silent.set_nonblocking(false)?;
    let slam = silent.try_clone()?;
    thread::spawn(move || slam.incoming().for_each(drop));
    fetch("an address that ends each connection")?;
    Ok(())
}

#[test]
fn the_certificate_that_passed_is_kept_once() -> Outcome {
    let lab = lab()?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let witness = lab.root().join("server.pem");
    let earlier = lab.root().join("last-good-time");
    fs::write(&earlier, "2099-01-01T00:00:00Z\n")?;
    lab.provider()
        .set_server_certificate(ServerCertificate::Good);
    fetch(&lab, &device)?.granted("older than this program")?;
    assert!(!witness.exists());
    lab.provider()
        .set_server_certificate(ServerCertificate::Latest);
    fetch(&lab, &device)?.granted("newer than this program")?;
    let kept = fs::read_to_string(&witness)?;
    assert_eq!(kept.matches("BEGIN CERTIFICATE").count(), 2, "{kept}");
    assert!(
        !earlier.exists(),
        "a date that nobody signed is still there"
    );
    // Each handshake shows another certificate, of the same begin: flash is spared.
    lab.provider()
        .set_server_certificate(ServerCertificate::Good);
    fetch(&lab, &device)?.granted("an older one")?;
    assert_eq!(fs::read_to_string(&witness)?, kept);
    Ok(())
}

#[test]
fn a_device_that_is_not_welcome_is_told_why() -> Outcome {
    let lab = lab()?;
    let elsewhere = Lab::start(LabOptions::default())?;
    let revoked = lab.provision_pem(KeyKind::EcdsaP256, "revoked")?;
    lab.revoke(&revoked);
    let unregistered = lab.provision_token(KeyKind::EcdsaP256, "unregistered")?;
    lab.forget(&unregistered);
    let foreign = elsewhere.provision_pem(KeyKind::EcdsaP256, "foreign")?;
    for versions in [TlsVersions::Tls12, TlsVersions::Tls13] {
        lab.provider().set_tls_versions(versions);
        for (device, words) in [
            (&revoked, "revoked or deactivated"),
            (&unregistered, "register and activate"),
            (&foreign, "register and activate"),
        ] {
            let case = format!("{} over {versions:?}", device.thing_name);
            let failure = fetch(&lab, device)?.failed(&case)?;
            assert_eq!(failure.class, FailureClass::Refused, "{case}: {failure:?}");
            assert!(failure.message.contains(words), "{case}: {failure:?}");
        }
    }
    assert!(lab.provider().issued().is_empty());
    lab.register(&revoked);
    fetch(&lab, &revoked)?.granted("registered again")?;
    Ok(())
}

#[test]
fn a_key_of_another_certificate_is_found_out() -> Outcome {
    let lab = lab()?;
    let own = lab.provision_pem(KeyKind::EcdsaP256, "own")?;
    // That a file's key is another's shows before anything is sent; a token's, when it signs.
    for (other, asked) in [
        (lab.provision_pem(KeyKind::EcdsaP256, "file")?, 0),
        (lab.provision_pem(KeyKind::Rsa2048, "file-rsa")?, 0),
        (lab.provision_token(KeyKind::Rsa2048, "token-rsa")?, 0),
        (lab.provision_token(KeyKind::EcdsaP256, "token")?, 1),
    ] {
        let mixed = with(&other, |d| d.certificate = own.certificate.clone());
        let before = lab.provider().connections().len();
        let failure = fetch(&lab, &mixed)?.failed(&mixed.thing_name)?;
        assert_eq!(failure.class, FailureClass::Refused, "{failure:?}");
        let words = "the private key does not belong to the certificate";
        assert!(failure.message.contains(words), "{failure:?}");
        assert_eq!(lab.provider().connections().len(), before + asked);
    }
    Ok(())
}

#[test]
fn a_redirection_is_never_followed() -> Outcome {
    let lab = lab()?;
    let elsewhere = Lab::start(LabOptions::default())?;
    let plain = TcpListener::bind("127.0.0.1:0")?;
    plain.set_nonblocking(true)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, "thing")?;
    let path = "role-aliases/edgerepl/credentials";
    for to in [
        format!("https://{}/{path}", elsewhere.provider().endpoint()),
        format!("http://{}/{path}", plain.local_addr()?),
        format!("https://{}/{path}", lab.provider().endpoint()),
        format!("/{path}"),
    ] {
        let before = lab.provider().connections().len();
        lab.provider().push_once(Behaviour::Redirect(to.clone()));
        let failure = fetch(&lab, &device)?.failed(&to)?;
        assert_eq!(failure.class, FailureClass::Transient, "{failure:?}");
        assert!(failure.message.contains("never followed"), "{failure:?}");
        assert_eq!(lab.provider().connections().len(), before + 1, "{to}");
    }
    assert!(elsewhere.provider().connections().is_empty());
    let visitor = plain.accept().map_err(|e| e.kind());
    assert_eq!(visitor.err(), Some(ErrorKind::WouldBlock));
    Ok(())
}

#[test]
fn a_file_that_is_not_there_or_not_one_costs_no_connection() -> Outcome {
    let lab = lab()?;
    let good = lab.provision_token(KeyKind::EcdsaP256, "token")?;
    let empty = lab.root().join("empty");
    fs::write(&empty, "")?;
    for (device, words) in [
        (
            with(&good, |d| d.certificate = "/nonexistent/device.crt".into()),
            "/nonexistent/device.crt cannot be read",
        ),
        (
            with(&good, |d| {
                d.private_key = "/nonexistent/device.key".to_owned()
            }),
            "/nonexistent/device.key cannot be read",
        ),
        (
            with(&good, |d| {
                d.private_key = good.private_key.replace("libsofthsm2.so", "absent.so")
            }),
            "absent.so cannot be used",
        ),
        (
            with(&good, |d| d.private_key = empty.display().to_string()),
            "it is empty",
        ),
    ] {
        let failure = fetch(&lab, &device)?.failed(words)?;
        assert_eq!(failure.class, FailureClass::Refused, "{failure:?}");
        assert!(failure.message.contains(words), "{failure:?}");
    }
    assert!(lab.provider().connections().is_empty());
    Ok(())
}

/// What a fetch child said and did.
struct Answer {
    stages: Vec<Stage>,
    outcome: Result<Grant, FetchFailure>,
    succeeded: bool,
    log: String,
}

impl Answer {
    fn granted(self, case: &str) -> Outcome<Grant> {
        assert!(self.succeeded, "{case}: {:?}", self.outcome);
        let expected = [Stage::Key, Stage::Network, Stage::Signature, Stage::Network];
        assert_eq!(self.stages, expected, "{case}");
        self.outcome
            .map_err(|failure| format!("{case}: {failure:?}; {}", self.log).into())
    }

    fn failed(self, case: &str) -> Outcome<FetchFailure> {
        assert!(!self.succeeded, "{case} was granted credentials");
        match self.outcome {
            Err(failure) => Ok(failure),
            Ok(_) => Err(format!("{case} was granted credentials").into()),
        }
    }
}

fn with(device: &Device, change: impl FnOnce(&mut Device)) -> Device {
    let mut device = device.clone();
    change(&mut device);
    device
}

fn lab() -> Outcome<Lab> {
    Ok(Lab::start(LabOptions {
        lifetime: Duration::from_secs(900),
        ..LabOptions::default()
    })?)
}

/// Starts the child as the daemon does and reads its answer.
fn fetch(lab: &Lab, device: &Device) -> Outcome<Answer> {
    fetch_by(Command::new(tools::edgerepl()?), lab, device)
}

fn fetch_by(mut command: Command, lab: &Lab, device: &Device) -> Outcome<Answer> {
    let request = common::request(lab, device, lab.root().join("refused-pin"))?;
    let mut child = command
        .arg("fetch")
        .env_clear()
        .envs(device.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("no standard input")?;
    stdin.write_all(request.to_json().as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let mut stages = Vec::new();
    let mut outcome = None;
    for line in String::from_utf8(output.stdout)?.lines() {
        assert!(outcome.is_none(), "something follows the answer");
        match Reply::parse(line) {
            Ok(Reply::Stage(stage)) => stages.push(stage),
            Ok(Reply::Granted(grant)) => outcome = Some(Ok(grant)),
            Ok(Reply::Failed(failure)) => outcome = Some(Err(failure)),
            Err(nonsense) => return Err(nonsense.message.into()),
        }
    }
    Ok(Answer {
        stages,
        outcome: outcome.ok_or_else(|| format!("no answer; its log: {log}"))?,
        succeeded: output.status.success(),
        log,
    })
}
