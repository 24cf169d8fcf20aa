//! A device with an image that was not made for tests: what they need is put in place while it runs.
//!
//! Owns what differs from our own image, which has all this built in. The root is read-only: what has
//! to be somewhere on it is mounted over it, and is gone with the power.

use xtask::image::{OWNERS, RESTORE, SOFTHSM};

use super::Failure;
use super::shell::Shell;

/// Where such images have SoftHSM's module.
pub(super) const SOFTHSM_MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// Makes a device that has just booted one of the bench's; one that restores, where it is to.
pub(super) fn prepare(shell: &mut Shell, restores: bool) -> Result<(), Failure> {
    // Until here edgerepl found no lab, and files that were not its own. Its first rows came before
    // there was anything to restore from.
    let restore = if restores {
        "systemctl stop edgerepl.service && rm -rf /data/app/* /data/app/.*.db* && \
         systemctl enable --runtime edgerepl-restore.service && "
    } else {
        ""
    };
    let steps = format!(
        "mkdir -p /run/bench && cd /run/systemd/system && \
         mkdir -p edgerepl.service.d edgerepl-restore.service.d && \
         {{ cat /etc/hosts; echo 10.0.2.2 lab.edgerepl.test; }} > /run/bench/hosts && \
         mount --bind /run/bench/hosts /etc/hosts && \
         mount --bind /data/edgerepl/litestream.yml /etc/litestream.yml && \
         cat > edgerepl.service.d/softhsm.conf <<'END'\n{SOFTHSM}END\n\
         cp edgerepl.service.d/softhsm.conf edgerepl-restore.service.d && \
         cat > edgerepl-restore.service.d/restore.conf <<'END'\n{RESTORE}END\n\
         cat > /run/bench/owners.conf <<'END'\n{OWNERS}END\n\
         systemd-tmpfiles --create /run/bench/owners.conf && {restore}\
         systemctl daemon-reload && systemctl restart --no-block edgerepl.service"
    );
    shell.run(&steps).map(drop)
}
