//! A process between edgerepl and Litestream's control socket, which counts the requests.
//!
//! Owns the count, a line for each request in a file, and how the process is put there: it is started
//! beside Litestream, by a script in Litestream's place, and ends with it. Changes no request and no answer.

use std::env;
use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;

use edgerepl_lab::{Site, tools};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use xtask::{Outcome, setup};

/// Its name among the tasks; not for people.
pub(crate) const COMMAND: &str = "count-requests";

/// The requests to the Litestream of a site.
pub(super) struct Requests(PathBuf);

impl Requests {
    /// Puts the process there, from the next start of the site on.
    pub(super) fn to_litestream_of(site: &mut Site) -> Result<Self, Box<dyn Error>> {
        let (listen, behind) = (
            site.runtime_file("litestream.sock"),
            site.runtime_file("behind.sock"),
        );
        let config = site.root().join("litestream.yml");
        let text = fs::read_to_string(&config)?;
        let spelled = |socket: &Path| format!("path: {}\n", socket.display());
        fs::write(&config, text.replace(&spelled(&listen), &spelled(&behind)))?;

        let (counted, script) = (site.root().join("requests"), site.root().join("litestream"));
        let (this, litestream) = (env::current_exe()?, tools::litestream(setup::LITESTREAM)?);
        // Only a replication has the socket.
        let text = format!(
            "#!/bin/sh\n\
             case $1 in replicate) {this:?} {COMMAND} {counted:?} {listen:?} {behind:?} & esac\n\
             exec {litestream:?} \"$@\"\n"
        );
        fs::write(&script, text)?;
        fs::set_permissions(&script, Permissions::from_mode(0o755))?;
        let command = format!("[{script:?}, \"replicate\", \"-config\", {config:?}]");
        site.set("replication", "command", command);
        Ok(Self(counted))
    }

    /// How many there were that begin so.
    pub(super) fn count(&self, beginning: &str) -> u64 {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        let lines = text.lines().filter(|line| line.starts_with(beginning));
        lines.count() as u64
    }
}

/// The process.
pub(crate) fn run(words: &[&str]) -> Outcome {
    let [counted, listen, behind] = words else {
        return Err("three paths are needed".into());
    };
    // However Litestream ends, which started this.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let _ = fs::remove_file(listen);
    let listener = UnixListener::bind(listen)?;
    let counted = File::options().create(true).append(true).open(counted)?;
    for client in listener.incoming() {
        let (client, counted) = (client?, counted.try_clone()?);
        let behind = PathBuf::from(behind);
        // Without an answer it is as if nobody listened.
        thread::spawn(move || pass_on(client, &behind, counted));
    }
    Ok(true)
}

fn pass_on(mut client: UnixStream, behind: &Path, mut counted: File) -> io::Result<()> {
    let mut request = [0; 4096];
    // edgerepl writes all of it at once.
    let length = client.read(&mut request)?;
    let request = &request[..length];
    let mut litestream = UnixStream::connect(behind)?;
    let line = request.split(|byte| *byte == b'\r').next();
    counted.write_all(&[line.unwrap_or_default(), b"\n"].concat())?;
    litestream.write_all(request)?;
    io::copy(&mut litestream, &mut client).map(drop)
}
