//! A disk of a few MB that is full or read-only on order.
//!
//! Owns a mount of its own, in memory, which goes with it. Mounts nothing anywhere else.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{Error, Result};

/// A disk of a few MB at a folder.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one of `megabytes` at `folder`; `None` where that is not allowed.
    pub fn mount(folder: &Path, megabytes: u32) -> Result<Option<Self>> {
        fs::create_dir_all(folder).map_err(Error::doing(folder.display()))?;
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(folder)
            .output()
            .map_err(Error::doing("mount"))?;
        Ok(mounted.status.success().then(|| Self(folder.to_owned())))
    }

    /// Makes it read-only, or writable again; all at once, whatever is open there.
    pub fn set_read_only(&self, on: bool) -> Result<()> {
        match on {
            true => {
                run(Command::new("mount").arg("--bind").args([&self.0, &self.0]))?;
                run(Command::new("mount")
                    .args(["-o", "remount,ro,bind"])
                    .arg(&self.0))
            }
            false => run(Command::new("umount").arg("-l").arg(&self.0)),
        }
    }

    /// Fills it to the last byte.
    pub fn fill(&self) -> Result<()> {
        let mut file = File::create(self.filling()).map_err(Error::doing("the filling"))?;
        while file.write(&[0; 4096]).is_ok_and(|n| n > 0) {}
        Ok(())
    }

    /// Gives the room back.
    pub fn free(&self) -> Result<()> {
        fs::remove_file(self.filling()).map_err(Error::doing("the filling"))
    }

    fn filling(&self) -> PathBuf {
        self.0.join("filling")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, for whatever may still be open there; twice, where it was bound to itself.
        for _ in 0..2 {
            let _ = Command::new("umount").arg("-l").arg(&self.0).output();
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(Error::doing("mount"))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::new(format!("{command:?} failed ({status})"))),
    }
}
