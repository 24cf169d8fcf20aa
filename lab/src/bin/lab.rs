//! The lab as a command: it serves until it is told to stop, for demos and for virtual machines,
//! and it does the part of provisioning a token that needs a process of its own.

use std::{
    env, fmt,
    io::{self, Read, Write},
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    sync::mpsc,
    thread,
    time::Duration,
};

use edgerepl_lab::{Device, KeyKind, Lab, LabOptions, token};
use nix::sys::signal::{SigSet, Signal};
use serde_json::{Value, json};

const USAGE: &str = "\
usage: lab serve [--lifetime SECONDS] [--bind ADDRESS] [--server-name NAME] [--root DIRECTORY]
                 [--pem KEY:THING]... [--token KEY:THING]...
       lab provision-token KEY COMMON_NAME MODULE

serve prints one line of JSON (endpoints and devices) and runs until SIGTERM, SIGINT or the end of
its standard input. KEY is ecdsa-p256 or rsa-2048.";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["serve", options @ ..] => ServeOptions::parse(options).and_then(serve),
        ["provision-token", kind, common_name, module] => {
            provision_token(kind, common_name, Path::new(module))
        }
        _ => Err(Failure(USAGE.to_owned())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("lab: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: ServeOptions) -> Result<(), Failure> {
    // Before anybody can know of this process: a signal waits until it is asked for.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(io::Error::from)?;
    let lab = Lab::start(options.lab)?;
    let mut devices = Vec::new();
    for wanted in options.devices {
        devices.push(described(&wanted.provision(&lab)?));
    }
    let root_credentials: serde_json::Map<String, Value> = lab
        .s3()
        .root_credentials()
        .env()
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect();
    let line = json!({
        "root": lab.root(),
        "ca_file": lab.ca_file(),
        "endpoint": lab.provider().endpoint(),
        "role_alias": lab.provider().role_alias(),
        "s3": {
            "endpoint": lab.s3().endpoint(),
            "bucket": lab.s3().bucket(),
            "root_credentials": root_credentials,
        },
        "devices": devices,
    });
    writeln!(io::stdout(), "{line}")?;
    wait_for_the_end(signals)
}

fn described(device: &Device) -> Value {
    let env: serde_json::Map<String, Value> = device
        .env
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    json!({
        "thing_name": device.thing_name,
        "certificate": device.certificate,
        "private_key": device.private_key,
        "env": env,
    })
}

/// A signal, or nobody left at the other end of standard input.
fn wait_for_the_end(signals: SigSet) -> Result<(), Failure> {
    let (end, ended) = mpsc::channel();
    let closed = end.clone();
    thread::spawn(move || {
        let mut ignored = [0; 256];
        while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
        // The receiver is gone only when the process is about to be.
        let _ = closed.send(Ok(()));
    });
    thread::spawn(move || {
        let _ = end.send(signals.wait().map(drop).map_err(io::Error::from));
    });
    ended.recv().unwrap_or(Ok(())).map_err(Failure::from)
}

fn provision_token(kind: &str, common_name: &str, module: &Path) -> Result<(), Failure> {
    let request = token::provision_in_this_process(module, kind.parse()?, common_name)?;
    io::stdout().write_all(request.as_bytes())?;
    Ok(())
}

struct ServeOptions {
    lab: LabOptions,
    devices: Vec<WantedDevice>,
}

impl ServeOptions {
    fn parse(arguments: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            lab: LabOptions::default(),
            devices: Vec::new(),
        };
        let (pairs, rest) = arguments.as_chunks::<2>();
        if let [lonely, ..] = rest {
            return Err(Failure(format!("{lonely} has no value\n{USAGE}")));
        }
        for [option, value] in pairs {
            match *option {
                "--lifetime" => {
                    let seconds = parsed(option, value)?;
                    options.lab.lifetime = Duration::from_secs(seconds);
                }
                "--bind" => options.lab.bind = parsed::<IpAddr>(option, value)?,
                "--server-name" => options.lab.server_name = (*value).to_owned(),
                "--root" => options.lab.root = Some(PathBuf::from(value)),
                "--pem" => options
                    .devices
                    .push(WantedDevice::parse(value, Lab::provision_pem)?),
                "--token" => {
                    options
                        .devices
                        .push(WantedDevice::parse(value, Lab::provision_token)?);
                }
                unknown => return Err(Failure(format!("{unknown} is not an option\n{USAGE}"))),
            }
        }
        Ok(options)
    }
}

type Provision = fn(&Lab, KeyKind, &str) -> edgerepl_lab::Result<Device>;

struct WantedDevice {
    kind: KeyKind,
    thing_name: String,
    provision: Provision,
}

impl WantedDevice {
    fn parse(text: &str, provision: Provision) -> Result<Self, Failure> {
        let (kind, thing_name) = text
            .split_once(':')
            .ok_or_else(|| Failure(format!("{text:?} is not KEY:THING\n{USAGE}")))?;
        Ok(Self {
            kind: kind.parse()?,
            thing_name: thing_name.to_owned(),
            provision,
        })
    }

    fn provision(&self, lab: &Lab) -> edgerepl_lab::Result<Device> {
        (self.provision)(lab, self.kind, &self.thing_name)
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(option: &str, value: &str) -> Result<T, Failure> {
    value
        .parse()
        .map_err(|cause| Failure(format!("{option} {value}: {cause}")))
}

/// What goes to standard error.
struct Failure(String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<edgerepl_lab::Error> for Failure {
    fn from(error: edgerepl_lab::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}
