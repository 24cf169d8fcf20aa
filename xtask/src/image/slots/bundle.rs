//! A bundle: what RAUC installs into the slot that does not run.
//!
//! Owns what is said in it and who signs it. What is in the slot afterwards is [`Root`]'s affair.

use std::{error::Error, fs, path::Path, process::Command};

use super::{MIB, Root, Slots, keys, root, step};

/// What is to be installed.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// For which machines it says to be: see [`compatible`](super::compatible).
    pub compatible: String,
    /// What is in the slot afterwards; the bundle says the same version.
    pub root: Root,
    /// Who signs it.
    pub signer: Signer,
}

/// Who signs a bundle.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signer {
    /// Whom the image trusts.
    Trusted,
    /// Somebody else.
    Stranger,
}

impl Slots {
    /// One that a device takes.
    pub fn update(&self, root: Root) -> Bundle {
        Bundle {
            compatible: super::compatible(self.image.arch),
            root,
            signer: Signer::Trusted,
        }
    }

    /// Makes a disk with bundles, each a file of its name that ends in `.raucb`.
    pub fn write_all(
        &self,
        bundles: &[(&str, Bundle)],
        label: &str,
        file: &Path,
    ) -> Result<(), Box<dyn Error>> {
        let folder = file.with_extension("bundles");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let mut size = 0;
        for (name, bundle) in bundles {
            let place = folder.join(name).with_extension("raucb");
            self.write(bundle, &place)?;
            size += fs::metadata(&place)?.len();
        }
        // And what the file system itself takes.
        let mib = (size + size / 16) / MIB + 8;
        root::file_system(&folder, file, label, mib)?;
        Ok(fs::remove_dir_all(folder)?)
    }

    /// Makes and signs it.
    pub fn write(&self, bundle: &Bundle, file: &Path) -> Result<(), Box<dyn Error>> {
        const SLOT: &str = "rootfs.ext4";
        let content = file.with_extension("content");
        let _ = fs::remove_dir_all(&content);
        fs::create_dir_all(&content)?;
        bundle.root.write(&self.tree, &content.join(SLOT))?;
        let manifest = format!(
            "[update]\ncompatible={}\nversion={}\n\n[bundle]\nformat=verity\n\n\
             [image.rootfs]\nfilename={SLOT}\n",
            bundle.compatible, bundle.root.version
        );
        fs::write(content.join("manifest.raucm"), manifest)?;
        let name = match bundle.signer {
            Signer::Trusted => keys::SIGNER,
            Signer::Stranger => keys::STRANGER,
        };
        let _ = fs::remove_file(file);
        let key = |end: &str| self.keys.join(format!("{name}.{end}"));
        let mut rauc = Command::new("rauc");
        rauc.arg("bundle")
            .arg("--mksquashfs-args=-comp zstd -Xcompression-level 3")
            .arg("--cert")
            .arg(key("pem"))
            .arg("--key")
            .arg(key("key"));
        step::run(rauc.arg(&content).arg(file))?;
        Ok(fs::remove_dir_all(content)?)
    }
}
