//! Which image this boot is of.
//!
//! Owns what tells two images apart: the slot, by the words of the kernel's command line that name what was
//! booted, and the release, by os-release(5). Where neither can tell two images apart, none is known: then a new one
//! would pass for the old one.

use std::fs;

use serde_json::{Value, json};

/// The words of the kernel's command line that name what is booted: by RAUC, by the kernel, by systemd and dm-verity,
/// by UBI, by barebox.
const SLOT: [&str; 6] = [
    "rauc.slot",
    "root",
    "roothash",
    "usrhash",
    "ubi.mtd",
    "bootchooser.active",
];

/// The fields of os-release that name a release of an image.
const RELEASE: [&str; 5] = ["ID", "VERSION_ID", "IMAGE_ID", "IMAGE_VERSION", "BUILD_ID"];

/// The image of one boot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Image {
    slot: String,
    release: String,
}

impl Image {
    /// The image that is booted; in the slot of that name, where somebody knows it. `None` if nothing tells which
    /// one it is.
    pub(super) fn booted(slot: Option<&str>) -> Option<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let release = match read("/etc/os-release") {
            text if text.is_empty() => read("/usr/lib/os-release"),
            text => text,
        };
        Self::of(slot, &read("/proc/cmdline"), &release)
    }

    fn of(slot: Option<&str>, command_line: &str, release: &str) -> Option<Self> {
        let told = words(command_line.split_whitespace(), &SLOT);
        let image = Self {
            slot: slot.map_or(told, str::to_owned),
            release: words(release.lines(), &RELEASE),
        };
        let is_of_slot = slot.is_some() || image.slot.split(' ').any(tells_slots_apart);
        let is_of_release = !words(release.lines(), &["IMAGE_VERSION", "BUILD_ID"]).is_empty();
        (is_of_slot || is_of_release).then_some(image)
    }

    /// Reads what [`document`](Self::document) has made.
    pub(super) fn read(document: &Value) -> Option<Self> {
        Some(Self {
            slot: document["slot"].as_str()?.to_owned(),
            release: document["release"].as_str()?.to_owned(),
        })
    }

    /// For the record.
    pub(super) fn document(&self) -> Value {
        json!({"slot": self.slot, "release": self.release})
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let parts = [&self.slot, &self.release].map(String::as_str);
        let told: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        f.write_str(&told.join(", "))
    }
}

/// A root that an initial RAM disk or the device mapper makes has one name, whatever it is made from.
fn tells_slots_apart(word: &str) -> bool {
    const MADE: [&str; 5] = ["ram", "dm-", "mapper/", "nfs", "root"];
    let root = word.strip_prefix("root=/dev/").unwrap_or_default();
    !word.is_empty() && !MADE.iter().any(|made| root.starts_with(made))
}

/// Of these `KEY=VALUE`s those with a wanted key, in the order in which they are wanted. Of two with one key the
/// last counts, as it does for the kernel and for a shell.
fn words<'a>(all: impl Iterator<Item = &'a str> + Clone, wanted: &[&str]) -> String {
    let value = |key: &&str| {
        let of_key = |word: &'a str| word.strip_prefix(*key)?.strip_prefix('=');
        let value = all.clone().filter_map(of_key).last()?;
        let value = value.trim().trim_matches(['"', '\'']);
        (!value.is_empty()).then(|| format!("{key}={value}"))
    };
    let found: Vec<String> = wanted.iter().filter_map(value).collect();
    found.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "NAME=\"Fleet OS\"\nVERSION_ID=\"2\"\n# BUILD_ID=7\nID=fleet\n";

    #[test]
    fn it_is_told_by_what_the_boot_loader_chose_and_by_its_release() {
        let image = |line, release| Image::of(None, line, release).expect("an image");
        let line = "console=ttyAMA0 rauc.slot=A root=PARTLABEL=slot-a ro quiet";
        let a = image(line, RELEASE);
        let shown = "rauc.slot=A root=PARTLABEL=slot-a, ID=fleet VERSION_ID=2";
        assert_eq!(a.to_string(), shown);
        assert_eq!(Image::read(&a.document()), Some(a.clone()));
        // What may change from boot to boot says nothing.
        let again = "root=PARTLABEL=slot-a  rauc.slot=A systemd.machine_id=77 loglevel=7\n";
        assert_eq!(image(again, RELEASE), a);
        for (line, release) in [
            ("rauc.slot=B root=PARTLABEL=slot-a", RELEASE),
            ("rauc.slot=A root=PARTLABEL=slot-b", RELEASE),
            ("root=PARTLABEL=slot-a", RELEASE),
            (line, "ID=fleet\nVERSION_ID=3\n"),
            (line, "ID=fleet\nVERSION_ID=2\nBUILD_ID=8\n"),
        ] {
            assert_ne!(image(line, release), a, "{line} {release}");
        }
        // The last one counts.
        let twice = "rauc.slot=B root=PARTLABEL=slot-a rauc.slot=A";
        assert_eq!(image(twice, RELEASE), a);
    }

    #[test]
    fn without_a_word_of_it_nobody_can_tell() {
        assert_eq!(Image::of(None, "quiet rooted=1", "NAME=x\n"), None);
        assert_eq!(Image::of(None, "", "ID=\"\"\n"), None);
        // Each image of such a distribution would be the same one.
        for line in [
            "root=/dev/dm-0",
            "root=/dev/ram0 quiet",
            "root=/dev/mapper/root",
            "",
        ] {
            assert_eq!(
                Image::of(None, line, "ID=poky\nVERSION_ID=5.0\n"),
                None,
                "{line}"
            );
            assert!(Image::of(None, line, "ID=poky\nBUILD_ID=20261201\n").is_some());
        }
        assert!(Image::of(None, "root=/dev/dm-0 roothash=7f", "").is_some());
        assert!(Image::of(None, "root=/dev/mmcblk0p2", "ID=poky\n").is_some());
        let told = Image::of(Some("b"), "root=/dev/sda2", "").expect("an image");
        assert_eq!(told.to_string(), "b");
    }

    #[test]
    fn what_is_no_image_is_none() {
        for odd in [
            json!(null),
            json!({}),
            json!({"slot": "a"}),
            json!({"slot": 7, "release": ""}),
        ] {
            assert_eq!(Image::read(&odd), None, "{odd}");
        }
    }
}
