//! What lies in the bucket below a prefix, as the bucket's owner sees and changes it: behind the back
//! of who replicates there, and past S3, which logs none of it.
//!
//! It owns what is kept beside an object: S3's files hold its checksum and its entity tag apart from
//! it, and what is changed here has to look like an object that was stored so. It never makes an
//! object that was not there.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tempfile::NamedTempFile;

use crate::{
    error::{Error, Result},
    s3::BUCKET,
};

/// The objects below a prefix.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Where S3 keeps its buckets, and beside them what it knows of their objects.
    root: PathBuf,
    prefix: String,
}

/// What was below a prefix once.
pub struct Copied(BTreeMap<String, Vec<u8>>);

impl Objects {
    pub(crate) fn new(root: &Path, prefix: &str) -> Self {
        Self {
            root: root.to_owned(),
            prefix: prefix.to_owned(),
        }
    }

    /// The folder in which they lie, each a file of its own.
    pub fn folder(&self) -> PathBuf {
        self.file(&self.prefix)
    }

    /// Their keys in the bucket, in order.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        collect(&self.folder(), &self.prefix, &mut keys)
            .map_err(Error::doing(self.folder().display()))?;
        keys.sort();
        Ok(keys)
    }

    /// Deletes an object. As with S3, one that is gone is none to worry about.
    pub fn remove(&self, key: &str) -> Result<()> {
        for file in [self.file(key), self.checksum(key), self.metadata(key)] {
            remove(&file)?;
        }
        Ok(())
    }

    /// Deletes all of them.
    pub fn remove_all(&self) -> Result<()> {
        self.keys()?.iter().try_for_each(|key| self.remove(key))
    }

    /// Leaves the first half of an object.
    pub fn halve(&self, key: &str) -> Result<()> {
        let bytes = self.read(key)?;
        self.replace(key, &bytes[..bytes.len() / 2])
    }

    /// Replaces an object by as many other bytes.
    pub fn garble(&self, key: &str) -> Result<()> {
        let bytes = self.read(key)?;
        let garbage: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        self.replace(key, &garbage)
    }

    /// Copies all of them.
    pub fn copy(&self) -> Result<Copied> {
        let read = |key: String| Ok((key.clone(), self.read(&key)?));
        Ok(Copied(
            self.keys()?.into_iter().map(read).collect::<Result<_>>()?,
        ))
    }

    /// Has the prefix hold what was copied, and nothing else.
    pub fn put_back(&self, copied: &Copied) -> Result<()> {
        for key in self.keys()? {
            if !copied.0.contains_key(&key) {
                self.remove(&key)?;
            }
        }
        let mut copied = copied.0.iter();
        copied.try_for_each(|(key, bytes)| self.replace(key, bytes))
    }

    fn read(&self, key: &str) -> Result<Vec<u8>> {
        let file = self.file(key);
        fs::read(&file).map_err(Error::doing(file.display()))
    }

    /// At once, as S3 does it: nobody reads a part of the object.
    fn replace(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let file = self.file(key);
        // S3 makes another from the object where it has none.
        remove(&self.checksum(key))?;
        let write = || -> io::Result<()> {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            let mut aside = NamedTempFile::new_in(&self.root)?;
            aside.write_all(bytes)?;
            aside.persist(&file)?;
            Ok(())
        };
        write().map_err(Error::doing(file.display()))
    }

    fn file(&self, key: &str) -> PathBuf {
        self.root.join(BUCKET).join(key)
    }

    /// The object's checksum and entity tag.
    fn checksum(&self, key: &str) -> PathBuf {
        self.beside(key, "internal")
    }

    /// What the client had S3 keep with the object.
    fn metadata(&self, key: &str) -> PathBuf {
        self.beside(key, "metadata")
    }

    fn beside(&self, key: &str, what: &str) -> PathBuf {
        let encoded = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        let (bucket, object) = (encoded(BUCKET), encoded(key));
        self.root
            .join(format!(".bucket-{bucket}.object-{object}.{what}.json"))
    }
}

fn collect(folder: &Path, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let key = format!("{prefix}/{}", entry.file_name().display());
        match entry.file_type()?.is_dir() {
            true => collect(&entry.path(), &key, keys)?,
            false => keys.push(key),
        }
    }
    Ok(())
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(Error::doing(file.display())(e)),
        _ => Ok(()),
    }
}
