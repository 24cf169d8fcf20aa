//! The application of a device: another user's, which knows nothing of edgerepl, and writes to two
//! databases of its own.
//!
//! Owns what is in them, and what is known to be committed. Who replicates them is not its affair.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::Failure;
use super::rig::{LIMIT, Rig, Running};

/// A small one, which it makes itself. Of all configurations litestream.yml alone names it.
pub(crate) const SETTINGS: &str = "settings.db";

/// The one that may be large. A device comes with it.
pub(crate) const MEASUREMENTS: &str = "measurements.db";

/// Both.
pub(crate) const DATABASES: [&str; 2] = [MEASUREMENTS, SETTINGS];

/// What it does, in the group that shares the databases: a row in each, and then it says, in a file that
/// is lost with the power, that the row was committed. SQLite itself would make a database that the group
/// may not write.
const PROGRAM: &str = r#"
umask 007
ask() { sqlite3 -cmd ".timeout 20000" /data/app/$1 "$2"; }
add() {
    id=$(ask $1 "INSERT INTO row (value) VALUES (randomblob(100)); SELECT max(id) FROM row") &&
        echo $id >/tmp/$1.new && mv /tmp/$1.new /tmp/$1
}
until touch /data/app/settings.db && ask settings.db "PRAGMA journal_mode = wal; CREATE TABLE IF NOT EXISTS row (id INTEGER PRIMARY KEY, value BLOB)"; do
    sleep 0.5
done
while ! test -e /tmp/application-ends; do
    add settings.db
    add measurements.db
    sleep 1
done
"#;

/// Makes the database that a device comes with, so many MiB large. Litestream compresses what is in it to
/// next to nothing: an emulated machine would upload as many random bytes for minutes, and again for
/// each of Litestream's levels.
pub(crate) fn provide(folder: &Path, mib: u32) -> Result<(), Failure> {
    let database = Connection::open(folder.join(MEASUREMENTS))?;
    database.pragma_update(None, "journal_mode", "wal")?;
    database.execute_batch("CREATE TABLE row (id INTEGER PRIMARY KEY, value BLOB)")?;
    // A page each, and no two alike.
    database.execute(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1) \
         INSERT INTO row (value) SELECT printf('%.4000d', i) FROM n",
        [mib * 256],
    )?;
    database.close().map_err(|(_, e)| e)?;
    let size = fs::metadata(folder.join(MEASUREMENTS))?.len();
    match size >= u64::from(mib) << 20 {
        true => Ok(()),
        false => Err(format!("{MEASUREMENTS} has {size} bytes").into()),
    }
}

/// Starts it, and waits until it has written, and all databases are proved.
pub(crate) fn work(device: &mut Running, rig: &Rig) -> Result<(), Failure> {
    start(device)?;
    wait_for_rows(device)?;
    device.wait_for_proofs(rig.databases().len()).map(drop)
}

/// Starts it. It waits for the data partition, and not for edgerepl.
pub(crate) fn start(device: &mut Running) -> Result<(), Failure> {
    let command = format!(
        "rm -f /tmp/application-ends; \
         setpriv --reuid=65534 --regid=edgerepl --clear-groups --inh-caps=-all \
         sh -c '{PROGRAM}' >/dev/null 2>&1 & application=$!"
    );
    device.shell.run(&command).map(drop)
}

/// Waits until it has committed a row in each of its databases.
pub(crate) fn wait_for_rows(device: &mut Running) -> Result<(), Failure> {
    let begun = Instant::now();
    while committed(device)?.len() < DATABASES.len() {
        if begun.elapsed() > LIMIT {
            return Err("the application does not write".into());
        }
        thread::sleep(Duration::from_millis(300));
    }
    Ok(())
}

/// Ends it, when it has written what it was about to.
pub(crate) fn end(device: &mut Running) -> Result<(), Failure> {
    let command = "touch /tmp/application-ends; wait $application";
    device.shell.run(command).map(drop)
}

/// The last row of each database that it has said to be committed since the machine is on.
pub(crate) fn committed(device: &mut Running) -> Result<Vec<(&'static str, i64)>, Failure> {
    let mut last = Vec::new();
    for name in DATABASES {
        let (code, text) = device.shell.try_run(&format!("cat /tmp/{name}"))?;
        if code == 0 {
            last.push((name, text.trim().parse()?));
        }
    }
    Ok(last)
}
