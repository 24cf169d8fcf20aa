//! What the images of a device know of each other: one file on the data partition, which outlives an update.
//!
//! Owns `boot-check.json`: on which image the device was healthy last, what was reached then, and how often
//! an image was given up since. It is written where one of these changes, which is seldom. Never trusts a
//! file of another form: it counts as no record, and stays until there is something to write.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::image::Image;
use crate::config::RuntimeDirectory;
use crate::system::file;

const FILE: &str = "boot-check.json";

/// The file's form. An image of another release has to read it: a change that breaks that raises the number.
const FORM: u64 = 1;

/// The largest size of a file, in bytes.
const LONGEST: u64 = 1 << 16;

/// How often images are given up in a row before nobody is asked to reboot any more. A boot loader counts to less:
/// with more reboots nothing else would come up.
const MOST_REFUSALS: u64 = 10;

/// The image on which the device was healthy last.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Proved {
    /// Which one it is.
    pub(super) image: Image,
    /// The servers that it needs, and so has reached, as `host:port`.
    pub(super) endpoints: Vec<String>,
    /// It was healthy to its end, as far as is known.
    pub(super) to_its_end: bool,
}

/// The record, and where it is.
#[derive(Debug)]
pub(super) struct Record {
    file: PathBuf,
    /// The last good image; or why none is known.
    pub(super) proved: Result<Proved, String>,
    /// How many boots ended with an image that was given up, since the device was healthy; and the last of them.
    refusals: u64,
    refused_in: String,
}

impl Record {
    /// Reads what the last image has left.
    pub(super) fn read(runtime: &RuntimeDirectory) -> Self {
        let place = runtime.lasting_file(FILE);
        let name = place.display();
        let (document, lack) = match file::read(&place, LONGEST) {
            Ok(text) => (
                serde_json::from_str(&text).unwrap_or_default(),
                format!("{name} is of a form that this edgerepl can't read"),
            ),
            Err(e) if e.kind() == ErrorKind::NotFound => {
                (Value::Null, format!("{name} is not there yet"))
            }
            Err(e) => (Value::Null, format!("{name} can't be read: {e}")),
        };
        Self::of(place, &document, lack)
    }

    fn of(file: PathBuf, document: &Value, lack: String) -> Self {
        let refused = &document["refused"];
        Self {
            file,
            proved: Proved::of(document).ok_or(lack),
            refusals: refused["boots"].as_u64().unwrap_or_default(),
            refused_in: refused["last"].as_str().unwrap_or_default().to_owned(),
        }
    }

    /// Whether giving up one more image can still bring another one up.
    pub(super) fn allows_refusal(&self) -> bool {
        self.refusals < MOST_REFUSALS
    }

    /// The device is healthy on an image: whatever was given up is over.
    pub(super) fn prove(&mut self, proved: Proved) -> io::Result<()> {
        if self.refusals == 0 {
            return self.note(proved);
        }
        self.refusals = 0;
        self.refused_in.clear();
        self.proved = Ok(proved);
        self.write()
    }

    /// More is known of the image on which it was healthy last.
    pub(super) fn note(&mut self, proved: Proved) -> io::Result<()> {
        if self.proved.as_ref() == Ok(&proved) {
            return Ok(());
        }
        self.proved = Ok(proved);
        self.write()
    }

    /// The image is given up in the boot with this id, which is counted once; without an id each time is.
    pub(super) fn refuse(&mut self, boot: &str) -> io::Result<()> {
        if !boot.is_empty() && self.refused_in == boot {
            return Ok(());
        }
        self.refusals += 1;
        boot.clone_into(&mut self.refused_in);
        self.write()
    }

    /// For whoever asks where it was looked for.
    pub(super) fn place(&self) -> std::path::Display<'_> {
        self.file.display()
    }

    fn write(&self) -> io::Result<()> {
        let proved = self.proved.as_ref().ok();
        let document = json!({
            "form": FORM,
            "image": proved.map(|proved| proved.image.document()),
            "endpoints": proved.map(|proved| &proved.endpoints),
            "healthy_to_its_end": proved.map(|proved| proved.to_its_end),
            "refused": {"boots": self.refusals, "last": self.refused_in},
        });
        file::replace_for_good(&self.file, 0o644, document.to_string().as_bytes())
    }
}

impl Proved {
    fn of(document: &Value) -> Option<Self> {
        if document["form"].as_u64() != Some(FORM) {
            return None;
        }
        let endpoints = document["endpoints"].as_array()?.iter();
        Some(Self {
            image: Image::read(&document["image"])?,
            endpoints: endpoints
                .map(|endpoint| endpoint.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
            to_its_end: document["healthy_to_its_end"].as_bool()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn place(name: &str) -> PathBuf {
        let name = format!("edgerepl-record-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a folder");
        folder.join(FILE)
    }

    fn read(file: &Path) -> Record {
        let text = file::read(file, LONGEST).unwrap_or_default();
        {
            let document = serde_json::from_str(&text).unwrap_or_default();
            Record::of(file.to_owned(), &document, String::new())
        }
    }

    fn proved(slot: &str) -> Proved {
        let image = json!({"slot": slot, "release": "VERSION_ID=1"});
        Proved {
            image: Image::read(&image).expect("an image"),
            endpoints: vec!["a.example:443".to_owned()],
            to_its_end: true,
        }
    }

    #[test]
    fn the_next_image_reads_what_this_one_leaves() {
        let file = place("next");
        let mut record = read(&file);
        assert!(record.proved.is_err());
        record.prove(proved("A")).expect("written");
        assert_eq!(read(&file).proved, Ok(proved("A")));
        // Nothing new is no reason to write.
        let written = || {
            fs::metadata(&file)
                .and_then(|file| file.modified())
                .expect("a file")
        };
        let before = written();
        read(&file).prove(proved("A")).expect("nothing to write");
        assert_eq!(written(), before);
        let ailing = Proved {
            to_its_end: false,
            ..proved("A")
        };
        read(&file).prove(ailing.clone()).expect("written");
        assert_eq!(read(&file).proved, Ok(ailing));
        fs::remove_dir_all(file.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn reboots_are_counted_and_end() {
        let file = place("reboots");
        read(&file).prove(proved("A")).expect("written");
        for boot in 0..MOST_REFUSALS {
            let mut record = read(&file);
            assert!(record.allows_refusal(), "{boot}");
            for _ in 0..3 {
                record.refuse(&boot.to_string()).expect("written");
            }
            assert_eq!(read(&file).refusals, boot + 1);
        }
        assert!(!read(&file).allows_refusal());
        assert_eq!(read(&file).proved, Ok(proved("A")), "it is still known");
        read(&file).prove(proved("B")).expect("written");
        assert!(read(&file).allows_refusal());
        // A kernel that tells no boot from another: each time is counted.
        for _ in 0..MOST_REFUSALS {
            read(&file).refuse("").expect("written");
        }
        assert!(!read(&file).allows_refusal());
        fs::remove_dir_all(file.parent().expect("a folder")).expect("removed");
    }

    #[test]
    fn what_it_can_not_read_is_no_record() {
        let whole = json!({
            "form": FORM, "image": {"slot": "A", "release": ""}, "endpoints": [], "healthy_to_its_end": true,
            "what a later release adds": [],
        });
        let of = |document: &Value| {
            Record::of(PathBuf::new(), document, String::new())
                .proved
                .ok()
        };
        assert!(of(&whole).is_some());
        let broken = [
            ("form", json!(FORM + 1)),
            ("form", json!("1")),
            ("image", json!(null)),
            ("endpoints", json!([7])),
            ("endpoints", json!({})),
            ("healthy_to_its_end", json!("yes")),
        ];
        for (key, odd) in broken {
            let mut document = whole.clone();
            document[key] = odd;
            assert_eq!(of(&document), None, "{document}");
        }
        for odd in [json!(null), json!([]), json!(7), json!({"refused": 7})] {
            assert_eq!(of(&odd), None, "{odd}");
        }
    }
}
