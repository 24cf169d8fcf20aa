//! Files of ours that others read: replaced whole, or not at all.
//!
//! Owns how: beside, with its mode before its first byte whatever the umask, then renamed. A link that
//! somebody put there leads nowhere. Not synced, but where that is asked for: they are on tmpfs, or worth
//! nothing after a power cut.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Has `path` hold `content`, with that mode.
///
/// # Errors
/// What the kernel says; the old file is as it was then.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let (beside, _) = write_beside(path, mode, content)?;
    fs::rename(beside, path)
}

/// The same, whatever a power cut does: it is on the disk when this is done, which takes as long as the
/// disk takes.
///
/// # Errors
/// What the kernel says; the old file is as it was then, or the new one may not outlive a power cut.
pub fn replace_for_good(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let (beside, file) = write_beside(path, mode, content)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn write_beside(path: &Path, mode: u32, content: &[u8]) -> io::Result<(PathBuf, File)> {
    let beside = beside(path);
    // Left by a process that was killed in the middle of this; or a link of somebody else's.
    remove(&beside)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    // Whatever the umask took away or the file system made of it.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    Ok((beside, file))
}

/// What such a file holds, of which no more than so many bytes are read.
///
/// # Errors
/// What the kernel says; or it is no text.
pub fn read(path: &Path, longest: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(longest).read_to_string(&mut text)?;
    Ok(text)
}

/// Removes a file, or the link at its place, if one is there.
///
/// # Errors
/// What the kernel says.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a folder for such files where there is none, and those that it is in. All may look into them,
/// and nobody but the owner may write there, whatever the umask. One that is there stays as it is.
///
/// # Errors
/// What the kernel says.
pub fn make_folder(path: &Path) -> io::Result<()> {
    const MODE: u32 = 0o755;
    // The parent of a bare name is empty, and is the working directory.
    if path.is_dir() || path.as_os_str().is_empty() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_folder(parent)?;
    }
    match DirBuilder::new().mode(MODE).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(MODE)),
        // Somebody else was quicker.
        Err(_) if path.is_dir() => Ok(()),
        made => made,
    }
}

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
    fn a_link_leads_nowhere_and_the_mode_is_what_was_asked_for() {
        let folder = std::env::temp_dir().join(format!("edgerepl-replace-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (path, victim) = (folder.join("file"), folder.join("victim"));
        fs::write(&victim, "precious").expect("somebody else's file");
        for link in [path.clone(), beside(&path)] {
            symlink(&victim, link).expect("a link");
        }
        for (mode, content) in [(0o644, "first"), (0o600, "second"), (0o666, "third")] {
            replace(&path, mode, content.as_bytes()).expect("replaced");
            let file = fs::symlink_metadata(&path).expect("the file");
            assert!(file.is_file());
            assert_eq!(file.permissions().mode() & 0o7777, mode);
            assert_eq!(fs::read_to_string(&path).expect("text"), content);
        }
        assert_eq!(fs::read_to_string(&victim).expect("it"), "precious");
        assert_eq!(fs::read_dir(&folder).expect("the folder").count(), 2);
        fs::remove_dir_all(folder).expect("removed");
    }
}
