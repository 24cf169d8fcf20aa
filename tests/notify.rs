//! What the service manager is told, and that the watchdog is fed by a loop that turns.

use std::error::Error;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use edgerepl_lab::{Behaviour, KeyKind, Lab, LabOptions, Site, tools};
use nix::sys::signal::Signal;

type Outcome = Result<(), Box<dyn Error>>;

const LIMIT: Duration = Duration::from_secs(20);

/// What the unit's `WatchdogSec=` would be.
const WATCHDOG: Duration = Duration::from_secs(1);

#[test]
fn a_service_manager_is_told_of_each_step_of_a_life() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    let (site, manager) = site(&lab, "notify-life")?;
    let mut daemon = site.start()?;
    manager.hears("READY=1")?;
    manager.hears("STATUS=starting")?;
    daemon.wait_for("replication", LIMIT, |status| status["state"] == "healthy")?;
    manager.hears("STATUS=healthy: replicating")?;
    daemon.signal(Signal::SIGHUP);
    // Type=notify-reload wants the time too, and in the same message.
    let reloading = manager.hears("RELOADING=1")?;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    manager.hears("READY=1")?;
    daemon.signal(Signal::SIGTERM);
    manager.hears("STOPPING=1")?;
    assert!(daemon.wait_for_exit()?.success());
    Ok(())
}

#[test]
fn the_watchdog_is_fed_while_a_fetch_hangs_and_not_by_a_loop_that_stands_still() -> Outcome {
    let lab = Lab::start(LabOptions::default())?;
    lab.provider().set_behaviour(Behaviour::Hang);
    let (mut site, manager) = site(&lab, "notify-watchdog")?;
    // Nothing else may wake the loop.
    site.set("heartbeat", "interval", "\"off\"");
    let daemon = site.start()?;
    manager.hears("READY=1")?;
    let begun = Instant::now();
    while begun.elapsed() < WATCHDOG * 5 {
        manager
            .hears("WATCHDOG=1")
            .map_err(|e| format!("the fetch starved the watchdog: {e}"))?;
    }
    daemon.signal(Signal::SIGSTOP);
    manager.drain();
    let starved = manager.hears("WATCHDOG=1");
    assert!(
        starved.is_err(),
        "a loop that stands still fed the watchdog"
    );
    daemon.signal(Signal::SIGCONT);
    manager.hears("WATCHDOG=1")?;
    Ok(())
}

fn site(lab: &Lab, thing: &str) -> Result<(Site, Manager), Box<dyn Error>> {
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing)?;
    let mut site = Site::new(lab, device, tools::edgerepl()?)?;
    let path = site.runtime_file("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(WATCHDOG * 2))?;
    site.set_env("NOTIFY_SOCKET", path.display().to_string());
    site.set_env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
    Ok((site, Manager(socket)))
}

/// The service manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    /// Waits for a message that holds `wanted`, over others that don't.
    fn hears(&self, wanted: &str) -> Result<String, Box<dyn Error>> {
        let deadline = Instant::now() + LIMIT;
        let quiet = Instant::now();
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            let length = self.0.recv(&mut buffer).map_err(|e| {
                format!(
                    "nothing is heard of {wanted} for {:?}: {e}",
                    quiet.elapsed()
                )
            })?;
            let message = String::from_utf8_lossy(&buffer[..length]);
            if message.contains(wanted) {
                return Ok(message.into_owned());
            }
        }
        Err(format!("{wanted} is never heard").into())
    }

    /// Forgets what was sent before now.
    fn drain(&self) {
        let mut buffer = [0; 4096];
        let patient = self.0.read_timeout().unwrap_or_default();
        let _ = self.0.set_read_timeout(Some(Duration::from_millis(100)));
        while self.0.recv(&mut buffer).is_ok() {}
        let _ = self.0.set_read_timeout(patient);
    }
}
