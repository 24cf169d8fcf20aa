//! Litestream's own configuration file: read, never written, for what in it does not go together with
//! credentials that live for minutes.
//!
//! Owns what is known to bite. Litestream itself says nothing of any of it: keys that it does not know
//! it ignores, and those that it knows it takes over the environment's.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use yaml_rust2::{Yaml, YamlLoader};

use super::command;

/// No configuration that somebody wrote is longer, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// The keys of a replica, and of the whole file, that hold credentials.
const STATIC_KEYS: [&str; 3] = ["access-key-id", "secret-access-key", "session-token"];

/// Keys of a replica that 0.5 no longer reads.
const KEYS_OF_0_3: [&str; 4] = [
    "retention",
    "retention-check-interval",
    "snapshot-interval",
    "validation-interval",
];

/// How soon the next rotation may come: of credentials for 15 min, the shortest that AWS grants.
const SOONEST_ROTATION: Duration = Duration::from_secs(600);

/// From this version on a snapshot is due by the age of the last one, not by Litestream's own.
const SNAPSHOTS_BY_REPLICA: (u32, u32, u32) = (0, 3, 12);

/// The file, as far as it could be read.
#[derive(Debug)]
pub struct Configuration {
    path: PathBuf,
    root: Yaml,
}

/// What the file should agree with.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// `[database] path`.
    pub database: &'a Path,
    /// `[replication] control_socket`.
    pub control_socket: &'a Path,
    /// The thing, where it is known.
    pub thing_name: Option<&'a str>,
    /// Litestream's version, where it tells.
    pub version: Option<(u32, u32, u32)>,
}

/// Something that bites, and the operator's next step.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// With it nothing is replicated as it should be; without, something is worse than it might be.
    pub is_fault: bool,
    /// What it is.
    pub cause: String,
    /// What to do.
    pub next: String,
}

impl Configuration {
    /// Reads the file that `replicate`, a command line of Litestream's, names.
    ///
    /// # Errors
    /// One sentence with the path where it can't be read or is no YAML.
    pub fn of(replicate: &[String]) -> Result<Self, String> {
        let path = command::configuration(replicate);
        let name = path.display();
        let unread = |e| format!("{name} can't be read: {e}");
        let metadata = fs::metadata(&path).map_err(unread)?;
        if !metadata.is_file() || metadata.len() > LONGEST {
            return Err(format!("{name} is no file that Litestream could read"));
        }
        let text = fs::read_to_string(&path).map_err(unread)?;
        let mut documents =
            YamlLoader::load_from_str(&text).map_err(|e| format!("{name} is not YAML: {e}"))?;
        let root = documents.drain(..).next().unwrap_or(Yaml::Null);
        Ok(Self { path, root })
    }

    /// The credentials in it, by their places: they win over whatever edgerepl provides, and end.
    pub fn static_keys(&self) -> Vec<String> {
        let mut places: Vec<(String, &Yaml)> = vec![(String::new(), &self.root)];
        places.extend(self.replicas());
        let found = places.iter().flat_map(|(place, node)| {
            let keys = STATIC_KEYS.iter().filter(|key| !node[**key].is_badvalue());
            keys.map(move |key| format!("{place}{key}"))
        });
        found.collect()
    }

    /// Where Litestream is told to have its local state for `database`; none where it has its own place,
    /// or one that only the environment tells.
    pub fn meta_path(&self, database: &Path) -> Option<PathBuf> {
        let wanted = database.to_str()?;
        let mut named = self
            .databases()
            .filter(|(_, node)| node["path"].as_str() == Some(wanted));
        let path = named.find_map(|(_, node)| node["meta-path"].as_str())?;
        (!path.contains('$')).then(|| path.into())
    }

    /// Everything that bites.
    pub fn lint(&self, around: Surroundings<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.credentials());
        findings.extend(self.database(around));
        findings.extend(self.prefix(around));
        match around.version {
            Some(version) if version < command::REFRESHES => {
                findings.extend(self.intervals(version));
            }
            _ => {
                findings.extend(self.socket(around));
                findings.extend(self.forgotten_keys());
            }
        }
        findings
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn credentials(&self) -> Option<Finding> {
        let keys = self.static_keys();
        (!keys.is_empty()).then(|| {
            fault(
                format!(
                    "it holds {}, which Litestream takes without the session token, and for ever",
                    keys.join(" and ")
                ),
                "remove it: edgerepl provides credentials",
            )
        })
    }

    fn database(&self, around: Surroundings<'_>) -> Option<Finding> {
        let wanted = around.database.to_string_lossy();
        let paths: Vec<&str> = self
            .databases()
            .filter_map(|(_, node)| node["path"].as_str())
            .collect();
        // What comes from the environment is known to Litestream alone.
        let is_there = paths
            .iter()
            .any(|path| *path == wanted || path.contains('$'));
        (!is_there).then(|| {
            fault(
                format!("it does not name the database {wanted}, but {paths:?}"),
                "make it the path that [database] path is",
            )
        })
    }

    fn prefix(&self, around: Surroundings<'_>) -> Option<Finding> {
        let (place, _) = self.replicas().into_iter().find(|(_, replica)| {
            let words = ["path", "url"].map(|key| replica[key].as_str().unwrap_or_default());
            let names_thing = words.iter().any(|word| {
                word.contains('$') || around.thing_name.is_some_and(|name| word.contains(name))
            });
            let is_local = replica["type"].as_str() == Some("file");
            !names_thing && !is_local
        })?;
        Some(notice(
            format!(
                "{}path does not name the thing: two devices with this file overwrite each \
                 other's replica",
                place
            ),
            "put ${EDGEREPL_THING_NAME} into it",
        ))
    }

    fn socket(&self, around: Surroundings<'_>) -> Option<Finding> {
        let socket = &self.root["socket"];
        if socket["enabled"].as_bool() != Some(true) {
            return Some(notice(
                "its control socket is not enabled: nothing shows that the replica follows",
                format!(
                    "add socket: {{ enabled: true, path: {}, permissions: 0600 }}",
                    around.control_socket.display()
                ),
            ));
        }
        let path = socket["path"]
            .as_str()
            .unwrap_or("/var/run/litestream.sock");
        let agrees = Path::new(path) == around.control_socket || path.contains('$');
        (!agrees).then(|| {
            fault(
                format!(
                    "its control socket is {path}, and edgerepl looks at {}",
                    around.control_socket.display()
                ),
                "make them one: socket.path there, or [replication] control_socket",
            )
        })
    }

    fn forgotten_keys(&self) -> Option<Finding> {
        let replicas = self.replicas();
        let forgotten: Vec<String> = replicas
            .iter()
            .flat_map(|(place, replica)| {
                let keys = KEYS_OF_0_3
                    .iter()
                    .filter(|key| !replica[**key].is_badvalue());
                keys.map(move |key| format!("{place}{key}"))
            })
            .collect();
        (!forgotten.is_empty()).then(|| {
            notice(
                format!(
                    "Litestream 0.5 ignores {}, and keeps to its own 24 h",
                    forgotten.join(" and ")
                ),
                "set snapshot.interval and snapshot.retention, for the whole file",
            )
        })
    }

    /// What 0.3 counts from its start: a rotation starts it. 0.5 goes by what is on the replica.
    fn intervals(&self, version: (u32, u32, u32)) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (place, replica) in self.replicas() {
            let too_long = |key: &str, default: Option<&str>| {
                let interval = replica[key].as_str().or(default)?.to_owned();
                let length = go_duration(&interval);
                length
                    .is_none_or(|length| length >= SOONEST_ROTATION)
                    .then_some(interval)
            };
            if let Some(interval) = too_long("retention-check-interval", Some("1h")) {
                findings.push(notice(
                    format!(
                        "{place}retention-check-interval is {interval}, which Litestream 0.3 counts \
                         from its start: where rotations are closer together nothing old is ever \
                         removed from S3"
                    ),
                    "set it to 5m, or install Litestream 0.5.17 or later",
                ));
            }
            let counts_snapshots = version < SNAPSHOTS_BY_REPLICA;
            if let Some(interval) = too_long("snapshot-interval", None).filter(|_| counts_snapshots)
            {
                findings.push(notice(
                    format!(
                        "{place}snapshot-interval is {interval}, which this Litestream counts from \
                         its start: where rotations are closer together there is never one, and a \
                         restore reads ever more"
                    ),
                    "install Litestream 0.5.17 or later",
                ));
            }
        }
        findings
    }

    /// All databases, with where they are in the file.
    fn databases(&self) -> impl Iterator<Item = (String, &Yaml)> {
        let databases = self.root["dbs"].as_vec().into_iter().flatten();
        databases
            .enumerate()
            .map(|(number, node)| (format!("dbs[{number}]."), node))
    }

    /// All replicas of all databases.
    fn replicas(&self) -> Vec<(String, &Yaml)> {
        let mut replicas = Vec::new();
        for (place, database) in self.databases() {
            let one = &database["replica"];
            if !one.is_badvalue() {
                replicas.push((format!("{place}replica."), one));
            }
            let many = database["replicas"].as_vec().into_iter().flatten();
            replicas.extend(
                many.enumerate()
                    .map(|(number, node)| (format!("{place}replicas[{number}]."), node)),
            );
        }
        replicas
    }
}

fn fault(cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding {
        is_fault: true,
        cause: cause.into(),
        next: next.into(),
    }
}

fn notice(cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding {
        is_fault: false,
        ..fault(cause, next)
    }
}

/// A duration as Go writes it, without fractions: `90s`, `1h30m`, `24h0m0s`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let (factor, length) = match unit {
            _ if unit.starts_with("ms") => (0, 2),
            _ if unit.starts_with('h') => (3600, 1),
            _ if unit.starts_with('m') => (60, 1),
            _ if unit.starts_with('s') => (1, 1),
            _ => return None,
        };
        seconds = seconds.checked_add(number.checked_mul(factor)?)?;
        rest = &unit[length..];
    }
    (!text.is_empty()).then(|| Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
socket: { enabled: true, path: /run/edgerepl/litestream.sock }
dbs:
  - path: /data/app.db
    replica:
      type: s3
      bucket: b
      path: ${EDGEREPL_THING_NAME}/app.db
";

    fn configuration(text: &str) -> Configuration {
        let mut documents = YamlLoader::load_from_str(text).expect("YAML");
        Configuration {
            path: "/etc/litestream.yml".into(),
            root: documents.pop().unwrap_or(Yaml::Null),
        }
    }

    fn findings(text: &str, version: (u32, u32, u32)) -> Vec<Finding> {
        configuration(text).lint(Surroundings {
            database: Path::new("/data/app.db"),
            control_socket: Path::new("/run/edgerepl/litestream.sock"),
            thing_name: Some("thing-1"),
            version: Some(version),
        })
    }

    #[test]
    fn has_nothing_to_say_of_a_good_one() {
        assert_eq!(findings(GOOD, (0, 5, 17)), []);
        let named = GOOD.replace("${EDGEREPL_THING_NAME}", "fleet/thing-1");
        assert_eq!(findings(&named, (0, 5, 17)), []);
    }

    #[test]
    fn names_each_trap_and_the_next_step() {
        let cases = [
            (
                "bucket: b",
                "bucket: b\n      access-key-id: A",
                "dbs[0].replica.access-key-id",
                true,
            ),
            (
                "dbs:",
                "secret-access-key: S\ndbs:",
                "it holds secret-access-key",
                true,
            ),
            (
                "path: /data/app.db",
                "path: /data/other.db",
                "/data/other.db",
                true,
            ),
            (
                "${EDGEREPL_THING_NAME}",
                "all",
                "dbs[0].replica.path does not name",
                false,
            ),
            (
                "enabled: true",
                "enabled: false",
                "control socket is not enabled",
                false,
            ),
            ("litestream.sock", "other.sock", "edgerepl looks at", true),
            (
                "bucket: b",
                "bucket: b\n      retention: 72h",
                "ignores dbs[0].replica.retention",
                false,
            ),
        ];
        for (from, to, words, is_fault) in cases {
            let found = findings(&GOOD.replace(from, to), (0, 5, 17));
            assert_eq!(found.len(), 1, "{to}: {found:?}");
            assert!(found[0].cause.contains(words), "{to}: {found:?}");
            assert_eq!(found[0].is_fault, is_fault, "{to}: {found:?}");
            assert!(!found[0].next.is_empty());
        }
        for odd in ["", "[]", "dbs: 3", "dbs: [1, {path: 7}]", "null"] {
            assert!(findings(odd, (0, 5, 17))[0].is_fault, "{odd}");
        }
    }

    #[test]
    fn knows_where_the_local_state_is() {
        let meta_path = |line: &str| {
            let text = GOOD.replace("    replica:", &format!("    {line}\n    replica:"));
            configuration(&text).meta_path(Path::new("/data/app.db"))
        };
        assert_eq!(
            meta_path("meta-path: /data/meta"),
            Some("/data/meta".into())
        );
        assert_eq!(meta_path("meta-path: $META"), None);
        assert_eq!(meta_path("monitor-interval: 1s"), None);
    }

    #[test]
    fn intervals_of_0_3_are_counted_from_a_start() {
        let old = GOOD.replace("replica:", "replicas:\n    -");
        let found = findings(&old, (0, 3, 13));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0]
                .cause
                .contains("dbs[0].replicas[0].retention-check-interval is 1h")
        );
        let quick = old.replace("bucket: b", "bucket: b\n      retention-check-interval: 5m");
        assert_eq!(findings(&quick, (0, 3, 13)), []);
        let daily = quick.replace("bucket: b", "bucket: b\n      snapshot-interval: 24h");
        assert_eq!(findings(&daily, (0, 3, 13)), []);
        let found = findings(&daily, (0, 3, 8));
        assert!(
            found[0].cause.contains("snapshot-interval is 24h"),
            "{found:?}"
        );
    }

    #[test]
    fn reads_go_durations() {
        let seconds = |text: &str| go_duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("300s"), Some(300));
        assert_eq!(seconds("500ms"), Some(0));
        for bad in ["", "h", "5", "5 m", "1d", "99999999999999999999h"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
