//! The traps of a device with an ATECC608: Microchip's module reads its files in surprising ways,
//! and answers `CKR_DEVICE_ERROR` to every mistake.
//!
//! Owns the rules of cryptoauthlib's configuration, as releases 3.7.8 to 3.8.0 read it. Reads files
//! only, and never talks to a chip.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Check, Outcome, fail, warn};

/// The module's default configuration file; a build may set another one.
const CONFIGURATION: &str = "/etc/cryptoauthlib/cryptoauthlib.conf";

/// The end of that path, which every build has.
const NAME: &[u8] = b"/cryptoauthlib.conf";

/// The default folder of slot files.
const STORE: &str = "/var/lib/cryptoauthlib";

/// The longest name of a slot file that the module reads, in bytes.
const LONGEST_NAME: usize = 14;

/// The module's shared memory, common to all processes that use the chip; a version follows the
/// second name.
const SHARED: [&str; 2] = ["atca_shared_mutex", "atpkcs11"];

/// Whether this is the module of an ATECC608, by its name.
pub(super) fn is_behind(module: &Path) -> bool {
    let name = module.file_name().unwrap_or_default().to_string_lossy();
    name.contains("cryptoauth")
}

/// The checks of the files that `module` reads, in the file system at `root`.
pub(super) fn checks(root: &Path, module: &Path) -> Vec<Check> {
    let store = match store(root, &configuration(module)) {
        Ok(store) => store,
        Err(outcome) => return vec![Check::new("slot", outcome)],
    };
    let (slot_file, bus) = match Slot::find(root, &store) {
        Ok(slot) => (slot.judge(), slot.judge_bus(root)),
        Err(outcome) => {
            let skipped = Outcome::Skip("no slot file names a bus".to_owned());
            (outcome, skipped)
        }
    };
    vec![
        Check::new("slot", slot_file),
        Check::new("bus", bus),
        Check::new("shared_memory", shared_memory(&root.join("dev/shm"))),
    ]
}

/// The path of the configuration that is compiled into the module.
fn configuration(module: &Path) -> PathBuf {
    let program = fs::read(module).unwrap_or_default();
    let end = program.windows(NAME.len()).position(|w| w == NAME);
    let path = end.and_then(|end| {
        let (before, _) = program.split_at(end);
        let start = before.iter().rposition(|byte| !byte.is_ascii_graphic())? + 1;
        String::from_utf8([&before[start..], NAME].concat()).ok()
    });
    PathBuf::from(
        path.filter(|p| p.starts_with('/'))
            .unwrap_or(CONFIGURATION.to_owned()),
    )
}

/// A path of the device, below `root`.
fn within(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

fn store(root: &Path, configuration: &Path) -> Result<PathBuf, Outcome> {
    let file = within(root, configuration);
    let text = fs::read_to_string(&file).map_err(|e| {
        fail(
            format!("{} can't be read: {e}", file.display()),
            "create it with the line \"filestore = /data/cryptoauthlib\", readable by edgerepl",
        )
    })?;
    let named = values(&text, "filestore").last().unwrap_or(STORE);
    Ok(PathBuf::from(named))
}

/// The values of a key, in a file of lines `key = value`.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.filter_map(move |(name, value)| (name.trim() == key).then_some(value.trim()))
}

/// A slot file and its text.
struct Slot {
    file: PathBuf,
    text: String,
}

impl Slot {
    /// The first one that the module reads.
    fn find(root: &Path, store: &Path) -> Result<Self, Outcome> {
        let folder = within(root, store);
        let store = store.display();
        let unreadable = |e: io::Error| {
            fail(
                format!("the folder {store} can't be read: {e}"),
                "create it, readable by edgerepl, or correct filestore in cryptoauthlib.conf",
            )
        };
        let mut unseen = None;
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(unreadable)? {
            let Ok(entry) = entry else { continue };
            let (name, kind) = (entry.file_name(), entry.file_type());
            let name_text = name.to_string_lossy().into_owned();
            if !name_text.ends_with(".conf") || name_text.matches('.').count() > 1 {
                continue;
            }
            let regular = kind.is_ok_and(|kind| kind.is_file());
            if !regular {
                unseen = Some(fail(
                    format!(
                        "{store}/{name_text} is not a regular file, and cryptoauthlib ignores it"
                    ),
                    "put the file itself there, or set filestore to the folder that holds it",
                ));
            } else if name_text.len() > LONGEST_NAME {
                unseen = Some(fail(
                    format!("the name of {store}/{name_text} is too long for cryptoauthlib"),
                    "rename it to 0.conf",
                ));
            } else {
                found.push(entry.path());
            }
        }
        found.sort();
        let file = match (found.into_iter().next(), unseen) {
            (Some(file), _) => file,
            (None, Some(unseen)) => return Err(unseen),
            (None, None) => {
                return Err(fail(
                    format!("{store} has no slot file"),
                    "add a 0.conf: docs/secure-element.md has one for each part",
                ));
            }
        };
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Self { file, text }),
            Err(e) => Err(fail(
                format!("{} can't be read: {e}", file.display()),
                "make it readable by edgerepl",
            )),
        }
    }

    fn judge(&self) -> Outcome {
        let name = self.file.display();
        if !self.text.ends_with('\n') {
            return fail(
                format!("{name} lacks its last newline: cryptoauthlib reads past the end"),
                "add a newline to the last line",
            );
        }
        for object in values(&self.text, "object") {
            let number = object.rsplit(',').next().unwrap_or_default();
            if is_ambiguous(number) {
                return warn(
                    format!(
                        "{name} has {object:?}: cryptoauthlib reads the slot as hexadecimal and \
                         uses the chip's slot {}",
                        u32::from_str_radix(number, 16).unwrap_or_default()
                    ),
                    "write slot 10 as A",
                );
            }
        }
        let label = values(&self.text, "label").last();
        match label {
            Some(label) => Outcome::Pass(format!("{name} gives the token the label {label:?}")),
            None => warn(
                format!("{name} has no label: the token's label is then 00ABC"),
                "add the line: label = edge",
            ),
        }
    }

    fn judge_bus(&self, root: &Path) -> Outcome {
        let name = self.file.display();
        let interface = values(&self.text, "interface").last().unwrap_or_default();
        let mut words = interface.split(',').map(str::trim);
        let (kind, _address, bus) = (words.next(), words.next(), words.next().unwrap_or_default());
        if kind != Some("i2c") {
            return Outcome::Pass(format!(
                "{name} has the interface {interface:?}, which is not I2C"
            ));
        }
        let digits = bus.trim_start_matches("0x");
        let Ok(number) = u32::from_str_radix(digits, 16) else {
            return fail(
                format!("{name} has the interface {interface:?}, which names no bus"),
                "write: interface = i2c,0x6C,1 (the 8-bit address, then the bus)",
            );
        };
        let device = format!("/dev/i2c-{number}");
        let hexadecimal = match is_ambiguous(bus) {
            true => format!("; cryptoauthlib reads {bus} as hexadecimal: write bus 10 as A"),
            false => String::new(),
        };
        match File::options()
            .read(true)
            .write(true)
            .open(root.join(&device[1..]))
        {
            Ok(_) if hexadecimal.is_empty() => Outcome::Pass(format!("{device} can be opened")),
            Ok(_) => warn(
                format!("{name} names {device}{hexadecimal}"),
                "make sure that the chip is on that bus",
            ),
            Err(e) if e.kind() == io::ErrorKind::NotFound => fail(
                format!("{device} does not exist{hexadecimal}"),
                "enable the bus in the device tree, and load i2c-dev",
            ),
            Err(e) => fail(
                format!("{device} can't be opened: {e}{hexadecimal}"),
                "give the device to the group i2c, and that group to edgerepl (drop-in i2c.conf)",
            ),
        }
    }
}

/// Whether a person reads it as decimal and the module as hexadecimal.
fn is_ambiguous(number: &str) -> bool {
    number.len() > 1 && !number.starts_with('0') && number.bytes().all(|b| b.is_ascii_digit())
}

/// The first process that uses the module creates these files. If that was root, they may lock all
/// others out.
fn shared_memory(folder: &Path) -> Outcome {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) => {
            return fail(
                format!("/dev/shm can't be read: {e}; cryptoauthlib needs it"),
                "mount a tmpfs there, writable by all users",
            );
        }
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !SHARED.iter().any(|shared| name.starts_with(shared)) {
            continue;
        }
        let Ok(file) = entry.metadata() else { continue };
        let next = format!(
            "rm /dev/shm/{name} while no process uses the chip; start root's processes with umask 0"
        );
        if file.len() == 0 {
            return fail(
                format!("/dev/shm/{name} is empty: a process that uses the chip dies of SIGBUS"),
                next,
            );
        }
        if file.mode() & 0o006 != 0o006 {
            return fail(
                format!(
                    "/dev/shm/{name} has the mode {:04o}: C_Initialize fails with \
                     CKR_FUNCTION_FAILED for all but its owner (user {})",
                    file.mode() & 0o7777,
                    file.uid()
                ),
                next,
            );
        }
    }
    Outcome::Pass("no file of cryptoauthlib in /dev/shm locks other users out".to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// A file system in a temporary folder.
    struct Disk(PathBuf);

    impl Disk {
        fn new(name: &str) -> Self {
            let name = format!("edgerepl-chip-{name}-{}", std::process::id());
            let disk = Self(std::env::temp_dir().join(name));
            let _ = fs::remove_dir_all(&disk.0);
            for folder in ["etc/cryptoauthlib", "data/store", "dev/shm"] {
                fs::create_dir_all(disk.0.join(folder)).expect("a folder");
            }
            disk.put(
                "etc/cryptoauthlib/cryptoauthlib.conf",
                "# x\nfilestore = /data/store\n",
            );
            disk.put("data/store/0.conf", GOOD);
            disk.put("dev/i2c-1", "");
            disk
        }

        fn put(&self, path: &str, text: &str) {
            fs::write(self.0.join(path), text).expect("written");
        }

        fn remove(&self, path: &str) {
            fs::remove_file(self.0.join(path)).expect("removed");
        }

        /// The text of a check: its outcome, what was found, what to do.
        fn says(&self, name: &str) -> String {
            let checks = checks(&self.0, &self.0.join("libcryptoauth.so"));
            let check = checks.into_iter().find(|check| check.name == name);
            match check.expect(name).outcome {
                Outcome::Pass(text) => format!("pass: {text}"),
                Outcome::Skip(text) => format!("skip: {text}"),
                Outcome::Warn { cause, next } => format!("warn: {cause}; {next}"),
                Outcome::Fail { cause, next } => format!("fail: {cause}; {next}"),
            }
        }
    }

    impl Drop for Disk {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const GOOD: &str = "label = edge\ninterface = i2c,0x6C,1\nobject = private,device,0\n";

    #[test]
    fn finds_nothing_where_nothing_is_wrong() {
        let disk = Disk::new("good");
        for name in ["slot", "bus", "shared_memory"] {
            let said = disk.says(name);
            assert!(said.starts_with("pass"), "{said}");
        }
        assert!(is_behind(Path::new("/usr/lib/libcryptoauth.so.3")));
        assert!(!is_behind(Path::new("/usr/lib/softhsm/libsofthsm2.so")));
    }

    #[test]
    fn looks_where_the_module_was_built_to_look() {
        let disk = Disk::new("built");
        disk.put(
            "libcryptoauth.so",
            "\u{1}ELF\0rb\0/data/cal/cryptoauthlib.conf\0more",
        );
        assert!(
            disk.says("slot")
                .contains("/data/cal/cryptoauthlib.conf can't be read")
        );
        fs::create_dir(disk.0.join("data/cal")).expect("a folder");
        disk.put("data/cal/cryptoauthlib.conf", "filestore = /data/store\n");
        assert!(disk.says("slot").starts_with("pass"));
    }

    #[test]
    fn names_each_trap_of_a_slot() {
        let disk = Disk::new("slot");
        let slot = "data/store/0.conf";
        for (text, words) in [
            ("label = edge", "lacks its last newline"),
            ("interface = i2c,0x6C,1\n", "warn: "),
            (
                "label = edge\nobject = private,device,10\n",
                "slot 16; write slot 10 as A",
            ),
        ] {
            disk.put(slot, text);
            assert!(disk.says("slot").contains(words), "{}", disk.says("slot"));
        }
        disk.remove(slot);
        assert!(disk.says("slot").contains("has no slot file"));
        assert!(disk.says("bus").starts_with("skip"));
        disk.put("data/0.conf", GOOD);
        symlink("../0.conf", disk.0.join(slot)).expect("a link");
        assert!(
            disk.says("slot").contains("is not a regular file"),
            "{}",
            disk.says("slot")
        );
        disk.remove(slot);
        disk.put("data/store/a-long-name.conf", GOOD);
        assert!(disk.says("slot").contains("too long"));
        disk.put(
            "etc/cryptoauthlib/cryptoauthlib.conf",
            "filestore = /none\n",
        );
        assert!(
            disk.says("slot").contains("folder /none"),
            "{}",
            disk.says("slot")
        );
        disk.remove("etc/cryptoauthlib/cryptoauthlib.conf");
        assert!(
            disk.says("slot")
                .contains("cryptoauthlib.conf can't be read")
        );
    }

    #[test]
    fn names_each_trap_of_a_bus() {
        let disk = Disk::new("bus");
        for (interface, words) in [
            ("i2c,0x6C,2", "/dev/i2c-2 does not exist; enable"),
            (
                "i2c,0x6C,10",
                "/dev/i2c-16 does not exist; cryptoauthlib reads 10 as hexadecimal",
            ),
            ("i2c,0x6C,x", "names no bus"),
            ("spi,0,0", "pass: "),
        ] {
            disk.put(
                "data/store/0.conf",
                &format!("label = edge\ninterface = {interface}\n"),
            );
            assert!(disk.says("bus").contains(words), "{}", disk.says("bus"));
        }
        disk.put(
            "data/store/0.conf",
            "label = edge\ninterface = i2c,0x6C,10\n",
        );
        disk.put("dev/i2c-16", "");
        assert!(disk.says("bus").starts_with("warn"));
    }

    #[test]
    fn names_who_locks_others_out() {
        let disk = Disk::new("shm");
        disk.put("dev/shm/atpkcs11_3_6", "");
        assert!(disk.says("shared_memory").contains("SIGBUS"));
        disk.put("dev/shm/atpkcs11_3_6", "x");
        let mode = |mode| {
            let file = disk.0.join("dev/shm/atpkcs11_3_6");
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("a mode");
        };
        mode(0o644);
        let said = disk.says("shared_memory");
        assert!(
            said.contains("0644") && said.contains("rm /dev/shm/atpkcs11_3_6"),
            "{said}"
        );
        mode(0o666);
        assert!(disk.says("shared_memory").starts_with("pass"));
    }
}
