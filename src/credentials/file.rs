//! The small files that an operator provides: certificates, keys, PINs.
//!
//! Owns the rule for reading them: regular files only (a FIFO would hang, a device never ends), and
//! only up to a limit. Never keeps or logs their contents.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::{FailureClass, FetchFailure};

/// The limit for a file with one certificate chain or one key, in bytes.
pub(super) const SMALL: usize = 64 * 1024;

/// Reads all of `path`, which an error message calls `what` ("the certificate").
pub(super) fn read(what: &str, path: &Path, limit: usize) -> Result<Vec<u8>, FetchFailure> {
    let mut content = Vec::new();
    read_into(what, path, limit, &mut content)?;
    Ok(content)
}

/// Like [`read`], into a buffer of the caller's that never moves: what is secret is not left behind
/// in freed memory.
pub(super) fn read_into(
    what: &str,
    path: &Path,
    limit: usize,
    content: &mut Vec<u8>,
) -> Result<(), FetchFailure> {
    let failed = |why: &dyn std::fmt::Display| {
        let message = format!("{what} {} cannot be read: {why}", path.display());
        FetchFailure::new(FailureClass::Refused, message)
    };
    // Without O_NONBLOCK the open of a FIFO waits for a writer.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path);
    let file = file.map_err(|e| failed(&e))?;
    let metadata = file.metadata().map_err(|e| failed(&e))?;
    if !metadata.is_file() {
        return Err(failed(&"it is not a regular file"));
    }
    let size = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    // One byte more than fits shows a file that is too long; 32 more keep `read_to_end` from
    // growing the buffer to look for the end.
    content.reserve_exact(size.min(limit) + 33);
    file.take(limit as u64 + 1)
        .read_to_end(content)
        .map_err(|e| failed(&e))?;
    if content.len() > limit {
        return Err(failed(&format_args!("it is longer than {limit} bytes")));
    }
    if content.is_empty() {
        return Err(failed(&"it is empty"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_no_small_regular_file() {
        let dir = std::env::temp_dir().join(format!("edgerepl-file-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary directory");
        let path = |name: &str| dir.join(name);
        std::fs::write(path("good"), "abc").expect("written");
        std::fs::write(path("long"), "abcd").expect("written");
        std::fs::write(path("empty"), "").expect("written");
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");

        assert_eq!(read("the file", &path("good"), 3), Ok(b"abc".to_vec()));
        for (name, why) in [
            ("long", "longer than 3 bytes"),
            ("empty", "empty"),
            ("fifo", "not a regular file"),
            (".", "not a regular file"),
            ("absent", "No such file"),
        ] {
            let failure = read("the file", &path(name), 3).expect_err(name);
            assert_eq!(failure.class, FailureClass::Refused);
            assert!(failure.message.contains(why), "{name}: {}", failure.message);
        }
        std::fs::remove_dir_all(dir).expect("removed");
    }
}
