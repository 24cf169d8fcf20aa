//! `edgerepl boot-check`: whether the image that was booted may stay, for whoever confirms an update over the air
//! or goes back to the slot before.
//!
//! Owns the order of the questions, and what is said. The rule is `trial`'s, what outlives the boot `record`'s, and
//! which image this is `image`'s. Needs no configuration: the image's own may be what is wrong. Never reboots:
//! the unit that runs it does.

use std::fs;
use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::output;
use crate::agent::State;
use crate::clock::BootTime;
use crate::config::RuntimeDirectory;
use crate::ipc::status;
use crate::system::{boot_id, file};

mod image;
mod record;
mod trial;

use image::Image;
use record::{Proved, Record};
use trial::{Before, Seen, Trial, Verdict};

/// What this boot knows of its trial, in the runtime directory: each call is a process of its own.
const TRIAL: &str = "boot-trial.json";

/// How often it is looked with `--wait`: five times within the limit at least, but for the shortest of them.
const PACE: Duration = Duration::from_secs(10);
const QUICKEST: Duration = Duration::from_secs(1);

/// How long a server's address may take to answer.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    /// The slot's name, where the caller knows it.
    pub(crate) slot: Option<&'a str>,
    /// How long the image may take, while it has what the one before had.
    pub(crate) limit: Duration,
    /// Ends once it is known.
    pub(crate) wait: bool,
}

/// The command: 0 if the image may stay, 1 if it may not, 3 if that is not known yet.
pub(crate) fn check(runtime: &RuntimeDirectory, order: &Order<'_>) -> ExitCode {
    let (mut boot, mut said) = (Boot::read(runtime), String::new());
    loop {
        let (verdict, code) = match boot.verdict(runtime, order) {
            Verdict::Stays(why) => (format!("the image may stay: {why}"), 0),
            Verdict::Leaves(why) => (format!("the image may not stay: {why}"), 1),
            Verdict::Unknown(why) => (
                format!("it is not known yet whether the image may stay: {why}"),
                3,
            ),
        };
        if code != 3 || !order.wait {
            if code == 3 {
                boot.keep(runtime);
            }
            // Whether or not somebody can read the words: 1 would be a verdict.
            let code = ExitCode::from(code);
            let _ = output::answer(format_args!("{verdict}\n"), code);
            return code;
        }
        // Once for each reason: it may wait for weeks.
        if said != verdict {
            log::info!("{verdict}");
            said = verdict;
        }
        thread::sleep((order.limit / 5).clamp(QUICKEST, PACE));
    }
}

/// Notes, before a reboot, whether the device is healthy: the next image is measured against it. 0 in any case but
/// that this can't be written.
pub(crate) fn note(runtime: &RuntimeDirectory, slot: Option<&str>) -> ExitCode {
    let (image, mut record) = (Image::booted(slot), Record::read(runtime));
    let own = |proved: &Proved| Some(&proved.image) == image.as_ref();
    let Some(before) = record.proved.clone().ok().filter(own) else {
        let words =
            "this is not the image on which the device was last healthy: nothing is noted\n";
        return output::answer(words, ExitCode::SUCCESS);
    };
    // One that was stopped already, or has only just started, says nothing; nor does one without a network.
    let status = status::ask(runtime).unwrap_or_default();
    let noted = match status["state"].as_str() {
        Some(State::HEALTHY) => {
            let proved = Proved {
                to_its_end: true,
                endpoints: endpoints(&status),
                ..before
            };
            let words = "the device is healthy\n";
            record.prove(proved).map(|()| words)
        }
        Some(State::UNHEALTHY) if are_reached(&before.endpoints).is_ok() => {
            let words = "the device is not healthy: of the next image no more is asked than that its daemon runs\n";
            let to_its_end = false;
            record
                .note(Proved {
                    to_its_end,
                    ..before
                })
                .map(|()| words)
        }
        _ => {
            Ok("it is not known whether this image or the network is to blame: nothing is noted\n")
        }
    };
    match noted {
        Ok(words) => output::answer(words, ExitCode::SUCCESS),
        Err(e) => {
            log::error!("{}", unwritten(&record, &e));
            ExitCode::FAILURE
        }
    }
}

/// What is known of this boot.
#[derive(Debug)]
struct Boot {
    /// The kernel's id of it; empty if the kernel does not tell.
    id: String,
    trial: Trial,
}

impl Boot {
    fn read(runtime: &RuntimeDirectory) -> Self {
        let id = boot_id();
        Self {
            trial: recall(runtime, &id),
            id,
        }
    }

    fn verdict(&mut self, runtime: &RuntimeDirectory, order: &Order<'_>) -> Verdict {
        let Some(image) = Image::booted(order.slot) else {
            if matches!(look(runtime, &[]), (Seen::Healthy, _)) {
                return Verdict::Stays("the device is healthy".to_owned());
            }
            let why = "neither the kernel's command line nor os-release says which image this is; name the slot with \
                       --slot";
            return Verdict::Unknown(why.to_owned());
        };
        // Each time: the data partition may be mounted late.
        let mut record = Record::read(runtime);
        let before = match &record.proved {
            // Whatever has become of it since: there is nothing better to go back to.
            Ok(proved) if proved.image == image => {
                return Verdict::Stays(format!(
                    "the device was last healthy on this one ({image})"
                ));
            }
            Ok(proved) if proved.to_its_end => Before::Healthy,
            Ok(_) => Before::Ailing,
            Err(_) => Before::Unknown,
        };
        let known = record.proved.as_ref();
        let known = known.map_or(&[][..], |proved| &proved.endpoints);
        let (seen, endpoints) = look(runtime, known);
        let now = BootTime::now();
        match self.trial.judge(seen, before, order.limit, now) {
            Verdict::Stays(why) => {
                let proved = Proved {
                    image,
                    endpoints,
                    to_its_end: true,
                };
                prove(&mut record, proved, why)
            }
            Verdict::Leaves(why) => refuse(&mut record, &self.id, why),
            Verdict::Unknown(why) => Verdict::Unknown(match &record.proved {
                Ok(_) => why,
                Err(lack) => {
                    format!("{why}; no image is known on which the device was healthy: {lack}")
                }
            }),
        }
    }

    /// Has the next call in this boot go on from here.
    fn keep(&self, runtime: &RuntimeDirectory) {
        let seconds = |time: Option<BootTime>| time.map(|time| time.since_boot().as_secs());
        let document = json!({
            "boot": self.id,
            "looked": seconds(self.trial.looked),
            "silent_since": seconds(self.trial.silent_since),
            "ill": self.trial.ill.as_secs_f64(),
            "was_ill": self.trial.was_ill,
        });
        let path = runtime.file(TRIAL);
        if let Err(e) = file::replace(&path, 0o644, document.to_string().as_bytes()) {
            log::warn!(
                "{} can't be written ({e}), so that the time of the trial is not counted; check the directory and its \
                 owner, or use --wait",
                path.display()
            );
        }
    }
}

/// What is seen of the device now, and the servers that it needs.
fn look(runtime: &RuntimeDirectory, known: &[String]) -> (Seen, Vec<String>) {
    let status = match status::ask(runtime) {
        Ok(status) => status,
        Err(cause) => return (Seen::Silent(cause), Vec::new()),
    };
    if status["state"] == State::HEALTHY {
        return (Seen::Healthy, endpoints(&status));
    }
    let problem = status["problems"][0]
        .as_str()
        .unwrap_or("no reason is told");
    let network = are_reached(known);
    let problem = problem.to_owned();
    (Seen::Unhealthy { problem, network }, Vec::new())
}

/// The servers that a status names.
fn endpoints(status: &Value) -> Vec<String> {
    let endpoints = status["endpoints"].as_array().into_iter().flatten();
    let endpoints = endpoints.filter_map(|endpoint| endpoint.as_str().map(str::to_owned));
    endpoints.collect()
}

/// Whether all of these servers can be reached, of which there is one at least.
fn are_reached(servers: &[String]) -> Result<(), String> {
    match servers {
        [] => Err("none is on record".to_owned()),
        servers => servers.iter().try_for_each(|server| reach(server)),
    }
}

/// Whether a server accepts TCP. No more is asked: its certificate and what it answers may be refused by what is wrong
/// with the image.
fn reach(server: &str) -> Result<(), String> {
    let addresses = server
        .to_socket_addrs()
        .map_err(|_| format!("{server} has no address"))?;
    let mut last = format!("{server} has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, CONNECT_LIMIT) {
            Ok(_) => return Ok(()),
            Err(e) => last = format!("{server}: {e}"),
        }
    }
    Err(last)
}

/// What an earlier call in this boot has seen.
fn recall(runtime: &RuntimeDirectory, boot: &str) -> Trial {
    let text = fs::read_to_string(runtime.file(TRIAL)).unwrap_or_default();
    let kept: Value = serde_json::from_str(&text).unwrap_or_default();
    if kept["boot"] != boot {
        return Trial::default();
    }
    let time = |key: &str| Some(BootTime::new(Duration::from_secs(kept[key].as_u64()?)));
    Trial {
        looked: time("looked"),
        silent_since: time("silent_since"),
        ill: Duration::try_from_secs_f64(kept["ill"].as_f64().unwrap_or_default())
            .unwrap_or_default(),
        was_ill: kept["was_ill"] == true,
    }
}

fn prove(record: &mut Record, proved: Proved, why: String) -> Verdict {
    match record.prove(proved) {
        Ok(()) => Verdict::Stays(why),
        // The next boot would take this image for a new one, and might give it up.
        Err(e) => Verdict::Unknown(format!("{why}, but {}", unwritten(record, &e))),
    }
}

fn refuse(record: &mut Record, boot: &str, why: String) -> Verdict {
    if !record.allows_refusal() {
        return Verdict::Unknown(format!(
            "{why}; it stays for want of another one: no image was healthy in the last boots"
        ));
    }
    match record.refuse(boot) {
        Ok(()) => Verdict::Leaves(why),
        // Without a count the device might reboot for ever.
        Err(e) => Verdict::Unknown(format!("{}; {why}", unwritten(record, &e))),
    }
}

fn unwritten(record: &Record, error: &io::Error) -> String {
    format!(
        "{} can't be written ({error}); check the directory, its owner and its free space",
        record.place()
    )
}
