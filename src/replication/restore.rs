//! Litestream's restore: the replica into a file of its own.
//!
//! Owns how it is run: on a leash, with nothing in its environment that would win over the credentials.
//! Never writes to a file that exists: Litestream itself refuses.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::statvfs::statvfs;

use super::command;
use crate::credentials::{Credentials, delivery};
use crate::system::leash;

/// Free space that is left to the device whatever happens, in bytes: its rows go on.
const SPARE: u64 = 16 * 1024 * 1024;

/// Where credentials are for, and the name that Litestream expands in its file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) credentials: &'a Credentials,
    pub(crate) region: &'a str,
    pub(crate) thing_name: &'a str,
}

/// Restores the replica of `database` to `output`, up to the transaction `upto` or to its end. Another
/// restore that holds `lock` is waited for.
///
/// # Errors
/// What Litestream says, in one sentence.
pub(crate) fn restore(
    replicate: &[String],
    database: &Path,
    output: &Path,
    upto: Option<u64>,
    lock: &Path,
    access: Access<'_>,
) -> Result<(), String> {
    let mut words = command::restore(replicate, output, upto)?;
    words.push(database.to_string_lossy().into_owned());
    let mut litestream: Command = leash::command(lock, &words);
    for name in delivery::UNWANTED {
        litestream.env_remove(name);
    }
    let source = delivery::Source::Values(access.credentials);
    litestream.envs(delivery::environment(
        access.thing_name,
        access.region,
        source,
    ));
    let mut running = litestream
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{} can't be run: {e}", words[0]))?;
    let mut said = String::new();
    if let Some(pipe) = &mut running.stderr {
        let _ = pipe.read_to_string(&mut said);
    }
    let ended = running.wait();
    if ended.is_ok_and(|status| status.success()) && output.is_file() {
        return Ok(());
    }
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let why: String = last
        .unwrap_or("it gives no reason")
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    Err(format!("Litestream can't restore the replica: {why}"))
}

/// Sees that `folder` takes another `size` bytes and leaves the device some.
///
/// # Errors
/// One sentence with both figures.
pub(crate) fn has_room(folder: &Path, size: u64) -> Result<(), String> {
    let name = folder.display();
    let room = statvfs(folder).map_err(|e| format!("{name} can't be looked at: {e}"))?;
    // Of 32 or of 64 bits, by the machine.
    #[allow(clippy::useless_conversion)]
    let free = u64::from(room.blocks_available()).saturating_mul(u64::from(room.fragment_size()));
    let needed = size.saturating_add(size / 8).saturating_add(SPARE);
    if free >= needed {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
    Err(format!(
        "{name} has {} MiB free, and {} MiB are needed: make room there",
        mib(free),
        mib(needed)
    ))
}

/// The size of a database with its WAL, in bytes.
pub(crate) fn size_of(database: &Path) -> u64 {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    size(database) + size(Path::new(&wal))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_figures() {
        let folder = std::env::temp_dir();
        assert_eq!(has_room(&folder, 1), Ok(()));
        let refused = has_room(&folder, 1 << 60).expect_err("an exbibyte");
        assert!(refused.contains("MiB free, and 123695058"), "{refused}");
        assert!(has_room(Path::new("/nowhere"), 1).is_err());
    }
}
