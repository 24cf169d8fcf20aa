//! The fetch: what the short-lived child does, step by step.
//!
//! Owns the order of the steps. The child is the only process that loads a vendor's module, reads a
//! PIN or speaks TLS; the reader of its answer checks it again. Never retries: the agent decides
//! when to fetch again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::prctl;
use nix::sys::signal::Signal;

use super::answer::{Asked, judge};
use super::certificate::Certificate;
use super::stage::{OnStage, Stage};
use super::tls::{self, Tls};
use super::wire::{FetchRequest, Reply};
use super::{FailureClass, FetchFailure, Grant, https, key};
use crate::config::{Identity, is_thing_name};

/// The longest request, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;

/// The command that the child is started with; not for people.
pub const COMMAND: &str = "fetch";

/// Fetches credentials, once. Blocks for the time that the key and the network take: the network
/// at most 20 s, the key as long as its module pleases.
///
/// # Errors
/// Why there are none.
pub fn fetch(request: &FetchRequest, on_stage: &OnStage) -> Result<Grant, FetchFailure> {
    fetch_then(request, on_stage, |outcome| outcome)
}

/// Fetches, and passes the outcome on before the key is closed: a module that hangs when it is
/// finalized must not cost the credentials that it helped to get.
fn fetch_then<T>(
    request: &FetchRequest,
    on_stage: &OnStage,
    pass_on: impl FnOnce(Result<Grant, FetchFailure>) -> T,
) -> T {
    // All that needs no key comes first: a secure element is not woken in vain.
    let prepared = Certificate::read(&request.identity.certificate).and_then(|certificate| {
        let thing_name = thing_name(&request.identity, &certificate)?;
        let roots = tls::read_roots(&request.provider.ca_file)?;
        let key = key::open(
            &request.identity.private_key,
            &request.refused_pin,
            on_stage,
        )?;
        Ok((certificate, thing_name, roots, key))
    });
    let (certificate, thing_name, roots, key) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => return pass_on(Err(failure)),
    };
    let exchange = || {
        if !certificate.may_belong_to(&*key) {
            let path = request.identity.certificate.display();
            let message = format!("the private key does not belong to the certificate {path}");
            return Err(FetchFailure::new(FailureClass::Refused, message));
        }
        let key = certificate.prove(Arc::clone(&key));
        let tls = Tls::new(request, roots, &certificate, key)?;
        let believed = tls.believed();
        on_stage(Stage::Network);
        let answer = https::get(request, &thing_name, &tls)?;
        let asked = Asked {
            host: &request.provider.endpoint.host,
            role_alias: &request.provider.role_alias,
            thing_name: &thing_name,
        };
        judge(&answer, asked, believed)
    };
    pass_on(exchange())
}

/// The name that the device goes by: the configured one, else the certificate's subject CN.
///
/// # Errors
/// `Refused` where the CN is no name of a thing.
pub fn thing_name(identity: &Identity, certificate: &Certificate) -> Result<String, FetchFailure> {
    if let Some(name) = &identity.thing_name {
        return Ok(name.clone());
    }
    match certificate.common_name() {
        Some(name) if is_thing_name(name) => Ok(name.to_owned()),
        name => {
            let has = name.map_or("no subject CN".to_owned(), |name| {
                let name: String = name.chars().take(128).collect();
                format!("the subject CN {name:?}, which is not a thing's name")
            });
            let message = format!(
                "the certificate {} has {has}: set identity.thing_name",
                identity.certificate.display()
            );
            Err(FetchFailure::new(FailureClass::Refused, message))
        }
    }
}

/// All that the child does: reads a [`FetchRequest`] from standard input up to its end, writes
/// each [`Reply`] to standard output when it is known. Succeeds with a grant.
///
/// For a process of its own, which it changes: it dies with its parent, and its standard output
/// becomes its standard error.
pub fn child() -> ExitCode {
    match answer_pipe() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            log::error!("the fetch child cannot read its request or write its answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn answer_pipe() -> io::Result<bool> {
    // No process would read the answer.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // Some modules print. The answer goes through a descriptor that they don't know of.
    let pipe = Arc::new(Mutex::new(File::from(
        io::stdout().as_fd().try_clone_to_owned()?,
    )));
    nix::unistd::dup2_stdout(io::stderr())?;
    let say = move |reply: &Reply| {
        let mut pipe = pipe.lock().unwrap_or_else(PoisonError::into_inner);
        pipe.write_all(reply.to_line().as_bytes())
    };

    let mut request = Vec::new();
    io::stdin().take(MAX_REQUEST).read_to_end(&mut request)?;
    let request = FetchRequest::from_json(&request)
        .map_err(|why| io::Error::other(format!("the request is malformed: {why}")))?;

    let tell = say.clone();
    let on_stage: OnStage = Arc::new(move |stage| {
        // Without a reader, writing the answer itself will fail.
        let _ = tell(&Reply::Stage(stage));
    });
    fetch_then(&request, &on_stage, |outcome| {
        let granted = outcome.is_ok();
        let reply = outcome.map_or_else(Reply::Failed, Reply::Granted);
        say(&reply).map(|()| granted)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PrivateKey;

    #[test]
    fn a_device_has_a_name() {
        let certificate = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/credentials/testdata/ec.crt"
        );
        let certificate = Certificate::read(certificate.as_ref()).expect("valid");
        let mut identity = Identity {
            thing_name: None,
            certificate: "/data/device.crt".into(),
            private_key: PrivateKey::Pem("/data/device.key".into()),
        };
        identity.thing_name = Some("configured".to_owned());
        assert_eq!(
            thing_name(&identity, &certificate).as_deref(),
            Ok("configured")
        );
        identity.thing_name = None;
        assert_eq!(
            thing_name(&identity, &certificate).as_deref(),
            Ok("thing-1")
        );
    }
}
