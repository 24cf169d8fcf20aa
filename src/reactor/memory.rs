//! What one run of the daemon records for the next about each database: since when a row is unproved, where
//! Litestream has to go on, whether it has to upload the whole database, whether no restore can succeed, and
//! whether one would give other bytes.
//!
//! Owns six files. `unproved.json` and `seams.json` are on tmpfs. The first is lost with the boot whose clock
//! it uses; only the reported age of a row depends on it. The second is of use where both processes die
//! within seconds of a start. `begin-anew.json`, `unrestorable.json` and `differs.json`
//! survive a power cut if there is a directory for that: what Litestream uploads onto a wrong replica is
//! lost, whatever it answers. They are written when that is found and when it is repaired, which is
//! seldom. `form.json` beside them says in which form. Never trusts a file that can't be read: it counts as no
//! record.
//!
//! An update over the air may go back: what is there was written by an earlier release, or by a later one. So
//! a file keeps its meaning for ever, what is new is a new file, and a file that is not known stays.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::agent::{Debt, Earlier, Legacy};
use crate::clock::BootTime;
use crate::config::RuntimeDirectory;
use crate::litestream::answer::Seam;
use crate::system::{boot_id, file};

const UNPROVED: &str = "unproved.json";
const SEAMS: &str = "seams.json";
const BEGIN_ANEW: &str = "begin-anew.json";
const UNRESTORABLE: &str = "unrestorable.json";
const DIFFERS: &str = "differs.json";
const FORM_FILE: &str = "form.json";

/// The form of what outlives an update: a release that adds a file raises it.
const FORM: u64 = 1;

/// The retry of a failed write.
const RETRY: Duration = Duration::from_secs(60);

/// The largest size of a file, in bytes.
const LONGEST: u64 = 1 << 20;

/// The record of an earlier run, and of this one.
#[derive(Debug)]
pub(super) struct Memory {
    unproved_file: PathBuf,
    boot: String,
    /// For each database since when a row is unproved, in whole seconds of this boot.
    unproved: BTreeMap<String, Option<u64>>,
    /// Where Litestream has to go on after its last start, and has not been seen to.
    seams_file: PathBuf,
    seams: BTreeMap<String, Seam>,
    /// The files are out of date: they are written at the end of the turn, once for all databases.
    is_newer: bool,
    are_others: bool,
    begin_anew: Lasting,
    unrestorable: Lasting,
    differs: Lasting,
}

/// The databases of which something is recorded for good.
#[derive(Debug)]
struct Lasting {
    file: PathBuf,
    /// What a restart of edgerepl may forget if the file can't be written.
    what: &'static str,
    databases: BTreeSet<String>,
    /// The file is out of date: it is written at this time.
    due: BootTime,
}

impl Memory {
    pub(super) fn new(runtime: &RuntimeDirectory) -> Self {
        sign(&runtime.state_file(FORM_FILE));
        Self::of(
            [UNPROVED, SEAMS].map(|name| runtime.file(name)),
            [BEGIN_ANEW, UNRESTORABLE, DIFFERS].map(|name| runtime.state_file(name)),
            boot_id(),
        )
    }

    fn of([unproved_file, seams_file]: [PathBuf; 2], lasting: [PathBuf; 3], boot: String) -> Self {
        let unproved = parse(&unproved_file);
        let kept = unproved["databases"].as_object();
        let kept = kept.filter(|_| unproved["boot"] == boot.as_str());
        let unproved = kept.into_iter().flatten().filter_map(|(path, since)| {
            let since = match since {
                Value::Null => None,
                seconds => Some(seconds.as_u64()?),
            };
            Some((path.clone(), since))
        });
        let seams = parse(&seams_file);
        let seams = seams.as_object().into_iter().flatten();
        let seams = seams.filter_map(|(path, seam)| {
            let [after, wal, read] = [&seam[0], &seam[1], &seam[2]].map(Value::as_u64);
            let (after, wal, read) = (after?, wal?, read?);
            Some((path.clone(), Seam { after, wal, read }))
        });
        let [begin_anew, unrestorable, differs] = lasting;
        Self {
            unproved: unproved.collect(),
            seams: seams.collect(),
            seams_file,
            is_newer: false,
            are_others: false,
            begin_anew: Lasting::of(begin_anew, "Litestream has to upload a database anew"),
            unrestorable: Lasting::of(unrestorable, "a database can't be restored"),
            differs: Lasting::of(differs, "a replica holds other bytes than its database"),
            unproved_file,
            boot,
        }
    }

    /// Returns what an earlier run recorded of a database.
    pub(super) fn recall(&self, database: &Path) -> Earlier {
        let seam = self.seam(database);
        let database = database.to_string_lossy();
        let debt = match self.unproved.get(&*database) {
            None => Debt::Unknown,
            Some(None) => Debt::Nothing,
            Some(Some(since)) => {
                let since = BootTime::new(Duration::from_secs(*since));
                Debt::Row(BootTime::now().since(since))
            }
        };
        Earlier {
            debt,
            begins_anew: self.begin_anew.databases.contains(&*database),
            is_unrestorable: self.unrestorable.databases.contains(&*database),
            differs: self.differs.databases.contains(&*database),
            seam,
        }
    }

    /// Where Litestream has to go on after the last start, where that was not seen.
    pub(super) fn seam(&self, database: &Path) -> Option<Seam> {
        self.seams.get(&*database.to_string_lossy()).copied()
    }

    /// Records what the next run has to know of a database.
    pub(super) fn keep(&mut self, database: &Path, legacy: Legacy) {
        let database = database.to_string_lossy().into_owned();
        self.begin_anew.keep(&database, legacy.begins_anew);
        self.unrestorable.keep(&database, legacy.is_unrestorable);
        self.differs.keep(&database, legacy.differs);
        let since = legacy.unproved_since.map(|t| t.since_boot().as_secs());
        let seam = match legacy.seam {
            Some(seam) => self.seams.insert(database.clone(), seam),
            None => self.seams.remove(&database),
        };
        self.are_others |= seam != legacy.seam;
        self.is_newer |= self.unproved.insert(database, since) != Some(since);
    }

    /// Writes what a turn has changed, and retries a failed write if it is due.
    pub(super) fn settle(&mut self, now: BootTime) {
        if std::mem::take(&mut self.is_newer) {
            let text = json!({"boot": self.boot, "databases": self.unproved});
            write(&self.unproved_file, &text);
        }
        if std::mem::take(&mut self.are_others) {
            let seams = self.seams.iter();
            let seams: Map<_, _> = seams
                .map(|(path, seam)| (path.clone(), json!([seam.after, seam.wal, seam.read])))
                .collect();
            write(&self.seams_file, &Value::Object(seams));
        }
        for lasting in [
            &mut self.begin_anew,
            &mut self.unrestorable,
            &mut self.differs,
        ] {
            if lasting.due <= now {
                lasting.write();
            }
        }
    }
}

impl Lasting {
    fn of(file: PathBuf, what: &'static str) -> Self {
        let databases = parse(&file);
        let databases = databases.as_array().into_iter().flatten();
        Self {
            databases: databases
                .filter_map(|path| path.as_str().map(str::to_owned))
                .collect(),
            file,
            what,
            due: BootTime::NEVER,
        }
    }

    fn keep(&mut self, database: &str, is_so: bool) {
        let is_news = match is_so {
            true => self.databases.insert(database.to_owned()),
            false => self.databases.remove(database),
        };
        if is_news {
            self.write();
        }
    }

    fn write(&mut self) {
        self.due = BootTime::NEVER;
        let text = json!(self.databases).to_string();
        if let Err(e) = file::replace_for_good(&self.file, 0o600, text.as_bytes()) {
            self.due = BootTime::now() + RETRY;
            log::warn!(
                "{} can't be written ({e}), so that a restart of edgerepl may forget that {}; retrying in {} s",
                self.file.display(),
                self.what,
                RETRY.as_secs()
            );
        }
    }
}

/// Says in which form the files are from now on.
fn sign(file: &Path) {
    let found = parse(file);
    if found["form"] == FORM {
        return;
    }
    if found["form"].as_u64() > Some(FORM) {
        let release = found["edgerepl"].as_str().unwrap_or("a later one");
        log::info!(
            "edgerepl {release} was here before this one: what it has left and this one does not know stays"
        );
    }
    let text = json!({"form": FORM, "edgerepl": env!("CARGO_PKG_VERSION")}).to_string();
    if let Err(e) = file::replace_for_good(file, 0o600, text.as_bytes()) {
        log::warn!(
            "{} can't be written: {e}; check the directory and its owner",
            file.display()
        );
    }
}

/// What is lost with the boot at the latest is worth no word to a person.
fn write(file: &Path, document: &Value) {
    if let Err(e) = file::replace(file, 0o600, document.to_string().as_bytes()) {
        log::debug!("{} can't be written: {e}", file.display());
    }
}

/// What is there and can't be read may have been worth knowing.
fn parse(file: &Path) -> Value {
    let parsed = match file::read(file, LONGEST) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Value::Null,
        Err(e) => Err(e.to_string()),
        Ok(text) => serde_json::from_str(&text).map_err(|e| e.to_string()),
    };
    parsed.unwrap_or_else(|cause| {
        log::warn!(
            "what an earlier run of edgerepl knew is lost, because {} can't be read: {cause}",
            file.display()
        );
        Value::Null
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DATABASE: &str = "/data/an app's.db";

    const SEAM: Seam = Seam {
        after: 7,
        wal: u64::MAX,
        read: 8,
    };

    fn brief(folder: &Path) -> [PathBuf; 2] {
        [UNPROVED, SEAMS].map(|name| folder.join(name))
    }

    /// The files that outlive a boot, the first of which a test looks at.
    fn lasting(folder: &Path, anew: &Path) -> [PathBuf; 3] {
        [
            anew.to_owned(),
            folder.join(UNRESTORABLE),
            folder.join(DIFFERS),
        ]
    }

    #[test]
    fn what_was_kept_is_recalled_in_the_same_boot_or_for_good() {
        let folder = std::env::temp_dir().join(format!("edgerepl-memory-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let anew = folder.join(BEGIN_ANEW);
        let lasting = lasting(&folder, &anew);
        let memory = |boot: &str| Memory::of(brief(&folder), lasting.clone(), boot.to_owned());
        let recalled = |boot: &str, path: &str| memory(boot).recall(Path::new(path));
        let legacy = |seconds: Option<u64>, begins_anew| Legacy {
            unproved_since: seconds.map(|s| BootTime::new(Duration::from_secs(s))),
            begins_anew,
            is_unrestorable: begins_anew,
            differs: begins_anew,
            seam: begins_anew.then_some(SEAM),
        };
        assert_eq!(recalled("this", DATABASE).debt, Debt::Unknown);

        let mut this = memory("this");
        this.keep(Path::new(DATABASE), legacy(Some(0), true));
        this.keep(Path::new("/data/other.db"), legacy(None, false));
        this.settle(BootTime::default());
        let up = BootTime::now().since_boot();
        for earlier in [recalled("this", DATABASE), this.recall(Path::new(DATABASE))] {
            assert!(matches!(earlier.debt, Debt::Row(age) if age >= up));
            assert!(earlier.begins_anew);
            assert_eq!(earlier.seam, Some(SEAM));
        }
        assert_eq!(memory("this").seam(Path::new(DATABASE)), Some(SEAM));
        let other = recalled("this", "/data/other.db");
        assert_eq!((other.debt, other.begins_anew), (Debt::Nothing, false));
        let later = recalled("another boot", DATABASE);
        assert_eq!((later.debt, later.begins_anew), (Debt::Unknown, true));
        assert!(later.is_unrestorable && later.differs);

        this.keep(Path::new(DATABASE), legacy(None, false));
        this.settle(BootTime::default());
        let mended = recalled("this", DATABASE);
        assert_eq!((mended.debt, mended.begins_anew), (Debt::Nothing, false));
        assert!(!mended.is_unrestorable && !mended.differs);
        assert_eq!(mended.seam, None);
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn what_somebody_else_wrote_says_nothing() {
        let folder = std::env::temp_dir().join(format!("edgerepl-odd-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (unproved, anew) = (folder.join(UNPROVED), folder.join(BEGIN_ANEW));
        for odd in [
            "",
            "null",
            "[7, null, {}]",
            r#"{"boot":"b"}"#,
            r#"{"boot":"b","databases":7}"#,
            r#"{"boot":"b","databases":{"/data/an app's.db":-7}}"#,
            r#"{"/data/an app's.db":[7]}"#,
            r#"{"/data/an app's.db":[7, 7, -1]}"#,
            r#"{"/data/an app's.db":{"0":7,"1":8}}"#,
            r#"{"boot":"b","databases":{"/data/an app's.db":1e99}}"#,
            r#"{"boot":"b","databases":{"/data/an app's.db":"7"}}"#,
            "\u{0}",
        ] {
            fs::write(&unproved, odd).expect("a file");
            fs::write(&anew, odd).expect("a file");
            fs::write(folder.join(SEAMS), odd).expect("a file");
            let memory = Memory::of(
                brief(&folder),
                [(); 3].map(|()| anew.clone()),
                "b".to_owned(),
            );
            let earlier = memory.recall(Path::new(DATABASE));
            let nothing = (Debt::Unknown, false);
            assert_eq!((earlier.debt, earlier.begins_anew), nothing, "{odd}");
            assert_eq!(earlier.seam, None, "{odd}");
        }
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn the_form_is_said_and_a_later_ones_files_stay() {
        let folder = std::env::temp_dir().join(format!("edgerepl-form-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (form, added) = (folder.join(FORM_FILE), folder.join("added.json"));
        let signed = || {
            sign(&form);
            parse(&form)["form"].as_u64()
        };
        assert_eq!(signed(), Some(FORM));
        let written = || {
            fs::metadata(&form)
                .and_then(|file| file.modified())
                .expect("it")
        };
        let before = written();
        assert_eq!((signed(), written()), (Some(FORM), before));
        fs::write(&added, "[7]").expect("a file");
        for other in [
            r#"{"form":2,"edgerepl":"9.9.9"}"#,
            "{",
            r#"{"form":"1"}"#,
            "7",
        ] {
            fs::write(&form, other).expect("a file");
            assert_eq!(signed(), Some(FORM), "{other}");
        }
        assert_eq!(fs::read_to_string(&added).expect("it"), "[7]");
        fs::remove_dir_all(folder).expect("the folder");
    }

    #[test]
    fn a_turn_writes_once_however_many_databases_it_is_about() {
        use std::os::unix::fs::MetadataExt;

        let folder = std::env::temp_dir().join(format!("edgerepl-once-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let (unproved, anew) = (folder.join(UNPROVED), folder.join(BEGIN_ANEW));
        let lasting = lasting(&folder, &anew);
        let mut memory = Memory::of(brief(&folder), lasting, "b".to_owned());
        let legacy = Legacy {
            unproved_since: None,
            begins_anew: false,
            is_unrestorable: false,
            differs: false,
            seam: None,
        };
        for number in 0..100 {
            memory.keep(Path::new(&format!("/data/{number}.db")), legacy);
            assert!(!unproved.exists(), "the turn is not over");
        }
        memory.settle(BootTime::default());
        let text = fs::read_to_string(&unproved).expect("it was written");
        assert_eq!(text.matches("/data/").count(), 100);
        // Nothing new is no reason to write.
        let file = || fs::metadata(&unproved).expect("a file").ino();
        let before = file();
        memory.keep(Path::new("/data/7.db"), legacy);
        memory.settle(BootTime::default());
        assert_eq!(file(), before);
        fs::remove_dir_all(folder).expect("the folder");
    }

    /// A disk that is full for a moment.
    #[test]
    fn what_could_not_be_written_is_written_later() {
        let folder = std::env::temp_dir().join(format!("edgerepl-owed-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let late = folder.join("not yet");
        let anew = late.join(BEGIN_ANEW);
        let lasting = lasting(&folder, &anew);
        let mut memory = Memory::of(brief(&folder), lasting.clone(), String::new());
        let legacy = Legacy {
            unproved_since: None,
            begins_anew: true,
            is_unrestorable: false,
            differs: false,
            seam: None,
        };
        memory.keep(Path::new(DATABASE), legacy);
        assert!(!anew.exists());
        fs::create_dir(&late).expect("a folder");
        let soon = BootTime::now();
        memory.settle(soon);
        assert!(!anew.exists(), "not at each turn");
        memory.settle(soon + RETRY);
        let next = Memory::of(brief(&folder), lasting, String::new());
        assert!(next.recall(Path::new(DATABASE)).begins_anew);
        fs::remove_dir_all(folder).expect("the folder");
    }
}
