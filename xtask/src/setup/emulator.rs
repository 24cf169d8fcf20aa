//! qemu-user, which runs a device's programs on this machine, and what fakes a clock for them.

use std::process::Command;

use super::{
    SetupError,
    packages::{self, Package},
    program,
};
use crate::target::Target;

/// What the time is for a device's programs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Clock {
    /// What it is here.
    True,
    /// Past the 32 bits of seconds, which are used up in January 2038.
    In2040,
}

impl Clock {
    /// The setting with which cargo runs a device's programs at that time, where it is another than
    /// that of .cargo/config.toml.
    pub fn runner(self, target: &Target) -> Option<String> {
        if self == Self::True {
            return None;
        }
        let (triple, emulator, gnu) = (target.triple, target.emulator, target.gnu);
        // The emulator's clock is faked, so that all that is emulated is as on the device: its C
        // library, and system calls with 64 bits of time. The library that does it stays outside.
        Some(format!(
            "target.{triple}.runner = [\
             'env', 'FAKETIME_DONT_FAKE_MONOTONIC=1', 'NO_FAKE_STAT=1', \
             'faketime', '-f', '@2040-01-02 03:04:05', \
             '{emulator}', '-U', 'LD_PRELOAD', '-L', '/usr/{gnu}']"
        ))
    }
}

/// Makes sure of the emulator, and of what fakes its clock.
pub(super) fn install(target: &Target, clock: Clock) -> Result<(), SetupError> {
    let emulator = target.emulator;
    let mut needed = vec![Package::new("qemu-user", program(emulator).is_some())];
    if clock == Clock::In2040 {
        needed.push(Package::new("faketime", program("faketime").is_some()));
    }
    packages::install(&needed)?;
    if clock == Clock::In2040 && !is_dynamic(emulator) {
        let cause = "it is linked statically, so that its clock can't be faked".to_owned();
        let next = "install the qemu-user of Debian 12, which is not";
        return Err(SetupError::new(&emulator, cause, next));
    }
    Ok(())
}

fn is_dynamic(name: &str) -> bool {
    let listed = program(name).map(|path| Command::new("ldd").arg(path).output());
    listed.is_some_and(|listed| listed.is_ok_and(|output| output.status.success()))
}
