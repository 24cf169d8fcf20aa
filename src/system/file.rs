//! Files that replace others whole, in folders where somebody else may write, too.
//!
//! Owns the order: made anew beside, where no link is followed and nothing of another's is opened, with
//! its mode from the start whatever the umask; and only then renamed. For what is on tmpfs and made anew
//! at each start: nothing is synced.

use std::ffi::OsString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Puts a file with this text and this mode in the place of whatever is at `path`.
///
/// # Errors
/// Where the folder or its file system refuses. What was at `path` is there as before.
pub(crate) fn replace(path: &Path, mode: u32, text: &str) -> io::Result<()> {
    let beside = beside(path);
    // Left by a process that was killed in the middle of this.
    match fs::remove_file(&beside) {
        Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    // Whatever the umask took away or the file system made of it.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    fs::rename(&beside, path)
}

/// What is made beside `path` before it is renamed.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_that_waits_for_the_file_leads_nobody_to_another() {
        let folder = std::env::temp_dir().join(format!("edgerepl-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, other) = (folder.join("text"), folder.join("other"));
        for link in [&path, &beside(&path)] {
            fs::write(&other, "another's").expect("a file");
            let _ = fs::remove_file(link);
            symlink(&other, link).expect("a link");
            replace(&path, 0o640, "ours").expect("replaced");
            assert_eq!(fs::read_to_string(&other).expect("a file"), "another's");
            assert_eq!(fs::read_to_string(&path).expect("a file"), "ours");
            let made = path.symlink_metadata().expect("a file");
            assert_eq!(made.permissions().mode(), 0o100_640);
        }
        assert!(!beside(&path).exists());
        fs::remove_dir_all(folder).expect("removed");
    }
}
