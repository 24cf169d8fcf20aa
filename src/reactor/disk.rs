//! Work that may take long on a slow disk: done by a child that is this program again.
//!
//! Owns both ends: the child's arguments, and its output. A folder of Litestream's files may hold tens
//! of thousands, and a WAL gigabytes. The child also protects the database's locks: closing any
//! descriptor of its files drops all of SQLite's locks on it in that process. Decides nothing.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::chore::Step;
use super::context::Context;
use crate::litestream::answer::{Answer, Files, Known, Position, Seam, Survey};
use crate::litestream::config_file::{Configuration, Variables};
use crate::litestream::lineage;
use crate::litestream::restore::{Aside, Turn, VERIFY};
use crate::litestream::uploads::Uploaded;
use crate::store;
use crate::system::this_program;

/// The child's command; not for people.
pub(crate) const COMMAND: &str = "disk";

const SURVEY: &str = "survey";
const EXAMINE: &str = "examine";
const COMPARE: &str = "compare";
const EMPTY_WAL: &str = "empty-wal";
const FIND: &str = "find";
const SWEEP: &str = "sweep";

/// The child that examines Litestream's files and the WAL while Litestream is down; `seam` is where the last one
/// was to go on.
pub(super) fn survey(database: &Path, state: &Path, seam: Option<Seam>) -> Step {
    let state = [state.as_os_str().to_owned()];
    step(SURVEY, database, &[&state[..], &words_of(seam)].concat())
}

/// The child that examines what Litestream took and uploaded up to its `position`; `counted` is the last
/// transaction that is counted.
pub(super) fn examine(
    database: &Path,
    state: &Path,
    known: Known,
    counted: u64,
    position: Position,
) -> Step {
    let numbers = [
        known.last.unwrap_or_default(),
        position.local,
        counted,
        position.replicated,
    ];
    let numbers = numbers.map(|number| number.to_string().into());
    let state = [state.as_os_str().to_owned()];
    let seam = words_of(known.seam);
    step(
        EXAMINE,
        database,
        &[&state[..], &numbers[..], &seam].concat(),
    )
}

/// The child that finds out whether all of Litestream's files were made from the current WAL.
pub(super) fn compare(database: &Path, state: &Path) -> Step {
    step(COMPARE, database, &[state.as_os_str().to_owned()])
}

/// The child that checkpoints the WAL into the database, and leaves the WAL empty.
pub(super) fn empty_wal(database: &Path) -> Step {
    step(EMPTY_WAL, database, &[])
}

/// The child that removes what a verify that was killed has left beside the database.
pub(super) fn sweep(database: &Path) -> Step {
    step(SWEEP, database, &[])
}

/// The child that looks through the folders that Litestream's configuration names: it reads the beginnings
/// of files there.
pub(super) fn find(context: &Context) -> Step {
    let asked = json!({
        "command": context.command(),
        "thing_name": context.thing_name(),
        "region": context.settings.region,
        "is_unit": context.settings.replication.has_unit(),
    });
    let mut command = this_program();
    command.arg(COMMAND).arg(FIND).arg(asked.to_string());
    Step::named("the look through Litestream's folders".to_owned(), command)
}

/// The result of [`find`].
pub(super) fn found(printed: &str) -> Result<Vec<PathBuf>, String> {
    let found = parse(printed)?;
    if let Some(cause) = found["failed"].as_str() {
        return Err(cause.to_owned());
    }
    let paths = found["databases"].as_array().ok_or(STRANGE)?.iter();
    let paths = paths.map(|path| path.as_str().map(PathBuf::from));
    paths
        .collect::<Option<_>>()
        .ok_or_else(|| STRANGE.to_owned())
}

/// The result of [`survey`].
pub(super) fn surveyed(printed: &str) -> Result<Survey, String> {
    let seen = parse(printed)?;
    let number = |at: usize| seen["seam"][at].as_u64().unwrap_or_default();
    Ok(Survey {
        wal_was_reset: seen["wal_was_reset"].as_bool().ok_or(STRANGE)?,
        is_empty: seen["is_empty"].as_bool().ok_or(STRANGE)?,
        folder: seen["folder"].as_u64(),
        seam: seam(number(0), number(1), number(2)),
        has_unread: seen["has_unread"].as_bool(),
        is_torn: seen["is_torn"].as_bool().unwrap_or_default(),
    })
}

/// The result of [`examine`], with Litestream's own `position` and the WAL's `last_commit`.
pub(super) fn examined(
    printed: &str,
    position: Position,
    last_commit: Option<u64>,
) -> Result<Answer, String> {
    let seen = parse(printed)?;
    let files = seen["folder"].as_u64().map(|folder| Files {
        folder,
        last: seen["last"].as_u64(),
        before: seen["before"].as_u64(),
    });
    Ok(Answer {
        position,
        files,
        last_commit,
        passed_a_wal_over: seen["passed_a_wal_over"].as_bool(),
        lacks_beginning: seen["lacks_beginning"].as_bool().ok_or(STRANGE)?,
        is_torn: seen["is_torn"].as_bool(),
        is_of_seam: seen["is_of_seam"].as_bool().unwrap_or_default(),
    })
}

/// What [`examine`] has found of what is not counted yet.
pub(super) fn to_count(printed: &str) -> Result<Uploaded, String> {
    let found = &parse(printed)?["to_count"];
    let number = |key: &str| found[key].as_u64().ok_or(STRANGE);
    Ok(Uploaded {
        uploads: number("files")?,
        bytes: number("bytes")?,
    })
}

/// The last transaction that [`survey`] has found.
pub(super) fn newest(printed: &str) -> Result<u64, String> {
    parse(printed)?["newest"].as_u64().ok_or(STRANGE.to_owned())
}

/// The result of [`compare`].
pub(super) fn compared(printed: &str) -> Result<bool, String> {
    parse(printed)?["is_one_wal"]
        .as_bool()
        .ok_or(STRANGE.to_owned())
}

/// The result of [`empty_wal`].
pub(super) fn emptied(printed: &str) -> Result<(), String> {
    match &parse(printed)?["failed"] {
        Value::Null => Ok(()),
        cause => Err(cause.as_str().unwrap_or(STRANGE).to_owned()),
    }
}

/// The result of [`sweep`].
pub(super) fn swept(printed: &str) -> Result<(), String> {
    emptied(printed)
}

/// The child's output; `None` if it does not know what was asked.
pub(crate) fn child(words: &[&str]) -> Option<String> {
    let seen = match words {
        [SURVEY, database, state, after, wal, read] => {
            let (database, state) = (Path::new(database), Path::new(state));
            let before = seam(after.parse().ok()?, wal.parse().ok()?, read.parse().ok()?);
            let (next, newest) = (lineage::seam(database, state), lineage::newest(state));
            json!({
                "wal_was_reset": lineage::wal_was_reset(database, state),
                "is_empty": store::is_empty(database),
                "folder": lineage::folder(database, state),
                "newest": newest,
                "seam": next.map(|(seam, _)| [seam.after, seam.wal, seam.read]),
                "has_unread": next.and_then(|(_, has_unread)| has_unread),
                "is_torn": before.and_then(|at| lineage::is_torn(database, state, at, newest)),
            })
        }
        [
            EXAMINE,
            database,
            state,
            seen,
            last,
            counted,
            replicated,
            after,
            wal,
            read,
        ] => {
            let at = seam(after.parse().ok()?, wal.parse().ok()?, read.parse().ok()?);
            let (database, state) = (Path::new(database), Path::new(state));
            let (seen, last) = (seen.parse().ok()?, last.parse().ok()?);
            let (counted, replicated) = (counted.parse().ok()?, replicated.parse().ok()?);
            let to_count = lineage::sizes(state, counted, replicated);
            let files = lineage::files(database, state, last, (seen > 0).then_some(seen));
            json!({
                "folder": files.map(|files| files.folder),
                "last": files.and_then(|files| files.last),
                "before": files.and_then(|files| files.before),
                "passed_a_wal_over": lineage::passed_a_wal_over(state),
                "lacks_beginning": lineage::lacks_beginning(database, state, seen, last),
                "is_of_seam": at.is_some_and(|at| lineage::is_of_seam(database, at)),
                "is_torn": at.and_then(|at| lineage::is_torn(database, state, at, last)),
                "to_count": {"files": to_count.uploads, "bytes": to_count.bytes},
            })
        }
        [COMPARE, database, state] => {
            json!({"is_one_wal": lineage::is_of_one_wal(Path::new(database), Path::new(state))})
        }
        [FIND, asked] => find_databases(&serde_json::from_str(asked).ok()?)?,
        [EMPTY_WAL, database] => json!({"failed": store::empty_wal(Path::new(database)).err()}),
        [SWEEP, database] => {
            // One that is at work is waited for, and has left nothing then.
            let left = Aside::make(Path::new(database), VERIFY, Turn::Next);
            json!({"failed": left.err()})
        }
        _ => return None,
    };
    Some(seen.to_string())
}

fn find_databases(asked: &Value) -> Option<Value> {
    let words = asked["command"].as_array()?.iter();
    let command: Option<Vec<String>> = words.map(|w| w.as_str().map(str::to_owned)).collect();
    let (thing_name, region) = (asked["thing_name"].as_str()?, asked["region"].as_str()?);
    let is_unit = asked["is_unit"].as_bool()?;
    let variables = Variables::of_litestream(thing_name, region, is_unit);
    Some(match Configuration::of(&command?, &variables) {
        Ok(configuration) => {
            let found = configuration.databases();
            // One that can't be written as a text is left to Litestream's own list.
            let paths = found.databases.iter().filter_map(|path| path.to_str());
            json!({"databases": paths.collect::<Vec<_>>()})
        }
        Err(cause) => json!({"failed": cause}),
    })
}

/// A seam as words of a command; zeros where there is none.
fn words_of(seam: Option<Seam>) -> [std::ffi::OsString; 3] {
    let numbers = seam.map_or([0; 3], |seam| [seam.after, seam.wal, seam.read]);
    numbers.map(|number| number.to_string().into())
}

fn seam(after: u64, wal: u64, read: u64) -> Option<Seam> {
    (after > 0).then_some(Seam { after, wal, read })
}

const STRANGE: &str = "the child that reads the disk printed something unexpected";

fn parse(printed: &str) -> Result<Value, String> {
    serde_json::from_str(printed).map_err(|_| STRANGE.to_owned())
}

fn step(what: &str, database: &Path, rest: &[std::ffi::OsString]) -> Step {
    let mut command = this_program();
    command.arg(COMMAND).arg(what).arg(database).args(rest);
    Step::named(
        format!("the check of the files of {}", database.display()),
        command,
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_child_says_what_its_parent_reads() {
        let folder = std::env::temp_dir().join(format!("edgerepl-disk-{}", std::process::id()));
        let (database, state) = (folder.join("app.db"), folder.join("state"));
        fs::create_dir_all(state.join("ltx/0")).expect("a folder");
        let path = |path: &Path| path.to_str().expect("a path").to_owned();
        let (database, state) = (path(&database), path(&state));
        let said = |words: &[&str]| child(words).expect("an answer");

        let survey =
            surveyed(&said(&[SURVEY, &database, &state, "0", "0", "0"])).expect("a survey");
        assert!(!survey.wal_was_reset && survey.folder.is_some());
        let position = Position {
            local: 7,
            replicated: 6,
        };
        let printed = said(&[
            EXAMINE, &database, &state, "0", "7", "4", "7", "0", "0", "0",
        ]);
        let answer = examined(&printed, position, Some(9)).expect("an answer");
        assert_eq!((answer.position, answer.last_commit), (position, Some(9)));
        let files = answer.files.expect("a folder");
        assert_eq!(Some(files.folder), survey.folder, "two children, one mark");
        assert_eq!((files.last, files.before), (None, None));
        assert_eq!(answer.passed_a_wal_over, None);
        assert_eq!(compared(&said(&[COMPARE, &database, &state])), Ok(false));
        let missing = emptied(&said(&[EMPTY_WAL, &database])).expect_err("no database");
        assert!(missing.contains("app.db"), "{missing}");
        assert_eq!(emptied(r#"{"failed":null}"#), Ok(()));

        let file = |number: u64| format!("{state}/ltx/0/{number:016x}-{number:016x}.ltx");
        for (number, size) in [(4, 100), (5, 30), (6, 7), (8, 1000)] {
            fs::write(file(number), vec![b'x'; size]).expect("a file");
        }
        assert_eq!(
            newest(&said(&[SURVEY, &database, &state, "0", "0", "0"])),
            Ok(8)
        );
        let printed = said(&[
            EXAMINE, &database, &state, "0", "7", "4", "7", "0", "0", "0",
        ]);
        let counted = Uploaded {
            uploads: 2,
            bytes: 37,
        };
        assert_eq!(to_count(&printed), Ok(counted));

        let left = folder.join(".app.db-verify");
        fs::create_dir(&left).expect("a folder");
        fs::write(left.join("replica-1"), "half of a copy").expect("a file");
        assert!(Aside::is_left(Path::new(&database), VERIFY));
        assert_eq!(swept(&said(&[SWEEP, &database])), Ok(()));
        assert!(!left.exists() && !Aside::is_left(Path::new(&database), VERIFY));

        for odd in ["", "{}", "null", r#"{"wal_was_reset":7}"#] {
            assert!(surveyed(odd).is_err(), "{odd}");
            assert!(examined(odd, position, None).is_err(), "{odd}");
            assert!(compared(odd).is_err(), "{odd}");
            assert!(to_count(odd).is_err() && newest(odd).is_err(), "{odd}");
        }
        assert!(emptied("").is_err());
        assert_eq!(child(&[]), None);
        for odd in [["-1", "0", "0"], ["0", "-1", "0"], ["0", "0", ""]] {
            let [seen, after, read] = odd;
            let odd = [
                EXAMINE, &database, &state, seen, "7", "0", "7", after, "1", read,
            ];
            assert_eq!(child(&odd), None);
        }
        fs::remove_dir_all(folder).expect("the folder");
    }
}
