//! A unit without systemd: a `systemctl` that comes first on edgerepl's PATH and does what the real
//! one would, starting Litestream with the variables of the unit's environment file and nothing else.

use std::{env, path::PathBuf, process::Command};

use edgerepl_lab::{Lab, Site, tools};

use crate::support::{Result, script, wait_until};

pub(crate) struct Unit {
    systemctl: PathBuf,
    /// Every call, as it was made.
    pub(crate) calls: PathBuf,
}

impl Unit {
    /// Installs it for `site`, whose configuration then says `supervisor = "systemd"`.
    pub(crate) fn install(lab: &Lab, site: &mut Site) -> Result<Self> {
        let litestream = tools::litestream("0.5.17")?;
        let config =
            lab.litestream_config(&site.database(), &site.runtime_file("litestream.sock"))?;
        let calls = site.root().join("systemctl.calls");
        let text = format!(
            r#"
echo "$*" >> {calls:?}
[ "$1" = --no-ask-password ] && shift
[ "$2" = litestream.service ] || exit 5
pid=$(cat {pid:?} 2>/dev/null)
runs() {{ [ -n "$pid" ] && [ -d /proc/$pid ] && ! grep -q '^State:.*Z' /proc/$pid/status; }}
kill -TERM $pid 2>/dev/null
while runs; do sleep 0.01; done
rm -f {pid:?}
[ "$1" = stop ] && exit 0
[ "$1" = restart ] || exit 2
# As systemd does: no shell ever looks at the values.
variables=$(cat {environment:?}) || exit 1
setsid env -i $variables {litestream:?} replicate -config {config:?} < /dev/null >> {log:?} 2>&1 &
echo $! > {pid:?}
"#,
            pid = site.root().join("litestream.pid"),
            log = site.root().join("log"),
            environment = site.runtime_file("litestream.env"),
        );
        let systemctl = script(site, "systemctl", &text)?;
        let path = env::var("PATH")?;
        site.set_env("PATH", format!("{}:{path}", site.root().display()));
        site.set("replication", "supervisor", "\"systemd\"");
        Ok(Self { systemctl, calls })
    }

    /// Stops Litestream, as at the machine's shutdown.
    pub(crate) fn stop(&self, site: &Site) -> Result {
        Command::new(&self.systemctl)
            .args(["stop", "litestream.service"])
            .status()?;
        wait_until("the unit's end", || {
            crate::support::litestreams(site).is_empty()
        })
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = Command::new(&self.systemctl)
            .args(["stop", "litestream.service"])
            .status();
    }
}
