//! What one run of the daemon leaves to the next: since when a row is not proved.
//!
//! Owns a file on tmpfs, `unproved` in the runtime directory, which is gone with the boot whose clock it
//! speaks of. Nothing depends on it but how old a row is said to be: what can't be read says nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::clock::BootTime;
use crate::config::RuntimeDirectory;
use crate::system::file;

/// The file's name, and what it holds where all is proved.
const FILE: &str = "unproved";
const NOTHING: &str = "none";

/// By which the kernel tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file of this boot.
#[derive(Debug)]
pub(super) struct Memory {
    path: PathBuf,
    boot: String,
}

/// What an earlier run of this boot knew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Earlier {
    /// There was none.
    Unknown,
    /// All that it wrote was proved.
    Proved,
    /// A row that was not.
    UnprovedSince(BootTime),
}

impl Memory {
    pub(super) fn new(runtime: &RuntimeDirectory) -> Self {
        Self {
            path: runtime.file(FILE),
            boot: fs::read_to_string(BOOT_ID).unwrap_or_default(),
        }
    }

    pub(super) fn recall(&self) -> Earlier {
        let text = fs::read_to_string(&self.path).unwrap_or_default();
        let Some(rest) = text.strip_prefix(&self.boot) else {
            return Earlier::Unknown;
        };
        match rest.trim() {
            NOTHING => Earlier::Proved,
            seconds => seconds.parse().map_or(Earlier::Unknown, |seconds| {
                Earlier::UnprovedSince(BootTime::new(Duration::from_secs(seconds)))
            }),
        }
    }

    pub(super) fn keep(&self, unproved: Option<BootTime>) {
        let what = unproved.map_or(NOTHING.to_owned(), |since| {
            since.since_boot().as_secs().to_string()
        });
        let text = format!("{}{what}\n", self.boot);
        if let Err(e) = file::replace(&self.path, 0o600, text.as_bytes()) {
            log::debug!("{} can't be written: {e}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_recalled_in_the_same_boot_alone() {
        let folder = std::env::temp_dir().join(format!("edgerepl-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let memory = |boot: &str| Memory {
            path: folder.join(FILE),
            boot: boot.to_owned(),
        };
        let (this, other) = (memory("a boot\n"), memory("another\n"));
        assert_eq!(this.recall(), Earlier::Unknown);
        let since = BootTime::new(Duration::from_secs(77));
        this.keep(Some(since));
        assert_eq!(this.recall(), Earlier::UnprovedSince(since));
        assert_eq!(other.recall(), Earlier::Unknown);
        this.keep(None);
        assert_eq!(this.recall(), Earlier::Proved);
        for odd in [
            "",
            "a boot\n-7\n",
            "a boot\n99999999999999999999\n",
            "a boot\n",
        ] {
            fs::write(folder.join(FILE), odd).expect("a file");
            assert_eq!(this.recall(), Earlier::Unknown, "{odd}");
        }
        fs::remove_dir_all(folder).expect("the folder");
    }
}
