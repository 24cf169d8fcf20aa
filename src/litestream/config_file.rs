//! Litestream's own configuration file: read as Litestream reads it, and checked for settings that
//! do not work with temporary credentials.
//!
//! Owns the known traps. Litestream reports none of them: it ignores unknown keys, and prefers the
//! file's credentials to the environment's. Never writes the file.

mod alone;
mod document;
mod expansion;
mod intervals;
mod named;
mod pattern;
#[cfg(test)]
mod tests;

use std::env;
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::command::{self, Replicate};
use document::Node;
use expansion::{Expanded, is_unknown};
use intervals::go_duration;

pub use expansion::Variables;
pub(crate) use named::Identity;
pub use named::{Entry, Folder, Found, Named};

/// The longest file that is read, in bytes.
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

/// From this version on a snapshot is due by the last snapshot's age, not by Litestream's uptime.
const SNAPSHOTS_BY_REPLICA: (u32, u32, u32) = (0, 3, 12);

/// The keys that decide where a replica is.
const WHEREABOUTS: [&str; 5] = ["path", "url", "bucket", "endpoint", "region"];

/// The file, as far as it could be read.
#[derive(Debug)]
pub struct Configuration {
    path: PathBuf,
    root: Rc<Node>,
    /// The same with a mark for each variable that is empty or not known.
    marked: Rc<Node>,
    expanded: Expanded,
    is_open: bool,
    restores: bool,
    executes: bool,
}

/// What the file has to agree with.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// `[database] path` of each; the first one is the one that edgerepl watches.
    pub databases: &'a [&'a Path],
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
    /// Reads the file that `replicate`, a command line of Litestream's, names; its variables have
    /// the values that they have for Litestream.
    ///
    /// # Errors
    /// One sentence with the path where it can't be read or is no YAML.
    pub fn of(replicate: &[String], variables: &Variables) -> Result<Self, String> {
        let command = Replicate::parse(replicate).ok();
        let path = command::configuration(replicate);
        let name = path.display();
        let unread = |e| format!("{name} can't be read: {e}");
        let metadata = fs::metadata(&path).map_err(unread)?;
        if !metadata.is_file() || metadata.len() > LONGEST {
            return Err(format!("{name} is not a file that Litestream can read"));
        }
        let text = fs::read_to_string(&path).map_err(unread)?;
        let is_literal = command.as_ref().is_some_and(Replicate::is_literal);
        let read = Self::read(&text, (!is_literal).then_some(variables));
        let mut configuration = read.map_err(|e| format!("{name} can't be parsed: {e}"))?;
        configuration.restores = command.as_ref().is_some_and(Replicate::restores_missing);
        configuration.executes = command.as_ref().is_some_and(Replicate::executes);
        configuration.path = path;
        Ok(configuration)
    }

    fn read(text: &str, variables: Option<&Variables>) -> Result<Self, String> {
        let longest = LONGEST as usize;
        let expanded = match variables {
            Some(variables) => Expanded::of(text, variables, longest)
                .ok_or("its variables make it longer than 1 MiB")?,
            None => Expanded::literally(text),
        };
        let root = Node::parse(&expanded.text)?;
        // Where the marks are in the way of YAML, what is missing can't be told by its place.
        let marked = Node::parse(&expanded.marked).unwrap_or_else(|_| Rc::clone(&root));
        Ok(Self {
            path: PathBuf::new(),
            root,
            marked,
            expanded,
            is_open: variables.is_some_and(Variables::are_open),
            restores: false,
            executes: false,
        })
    }

    /// The credentials in it, by their places: they win over whatever edgerepl provides, and end.
    pub fn static_keys(&self) -> Vec<String> {
        let mut places: Vec<(String, &Node)> = vec![(String::new(), &*self.root)];
        places.extend(replicas(&self.root));
        let found = places.iter().flat_map(|(place, node)| {
            let keys = STATIC_KEYS.iter().filter(|key| node.text(key).is_some());
            keys.map(move |key| format!("{place}{key}"))
        });
        found.collect()
    }

    /// Where Litestream is told to have its local state for `database`; none where it has its own
    /// place, or one that only the environment tells.
    pub fn meta_path(&self, database: &Path) -> Option<PathBuf> {
        let entry = self.entry(database)?;
        let told = |key: &str| {
            let path = entry.text(key)?;
            (!is_unknown(path)).then(|| absolute(path))
        };
        let Some(inside) = self.inside_folder(database) else {
            return told("meta-path");
        };
        // Each database of a folder has its own in there.
        let name = inside.file_name()?.to_string_lossy();
        match told("meta-dir") {
            Some(folder) => Some(folder.join(inside.with_file_name(format!("{name}-litestream")))),
            None => {
                let own = inside.with_file_name(format!(".{name}-litestream"));
                Some(told("meta-path")?.join(own))
            }
        }
    }

    /// The bucket that `database` is replicated to; none where only the environment tells.
    pub fn bucket(&self, database: &Path) -> Option<String> {
        let replica = replica_of(self.entry(database)?)?;
        let of_url = || {
            let (_, rest) = replica.text("url")?.split_once("s3://")?;
            rest.split(['/', '?']).next()
        };
        let bucket = replica.text("bucket").or_else(of_url)?;
        (!bucket.is_empty() && !is_unknown(bucket)).then(|| bucket.to_owned())
    }

    /// Where the replica of `database` is, for people: `s3://my-fleet/thing/app.db`. None where only the
    /// environment tells, or where a credential may be in it.
    pub fn place(&self, database: &Path) -> Option<String> {
        let replica = replica_of(self.entry(database)?)?;
        let place = match replica.text("url") {
            Some(url) => url.split('?').next()?.to_owned(),
            None => {
                let path = replica.text("path").unwrap_or_default();
                let bucket = replica.text("bucket")?;
                format!("s3://{bucket}/{}", path.trim_start_matches('/'))
            }
        };
        let place = match self.inside_folder(database) {
            Some(inside) => format!("{}/{}", place.trim_end_matches('/'), inside.display()),
            None => place,
        };
        (!is_unknown(&place) && !place.contains('@')).then_some(place)
    }

    /// The servers of all replicas that are in S3 or a store like it, as `host:port`; those of AWS in `region`
    /// where the file names no other. None where only the environment tells.
    pub fn stores(&self, region: &str) -> Vec<String> {
        let replicas = replicas(&self.root).into_iter();
        replicas
            .filter_map(|(_, replica)| store(replica, region))
            .collect()
    }

    /// Whether the file names `database`, by its path or by a folder that would hold it.
    pub fn names(&self, database: &Path) -> bool {
        self.entry(database).is_some()
    }

    /// Whether Litestream itself restores `database` where it is missing, before it replicates.
    pub fn restores_missing(&self, database: &Path) -> bool {
        let entry = self.entry(database);
        self.restores || entry.is_some_and(|node| node.is_true("restore-if-db-not-exists"))
    }

    /// The entry of `database`: the one that names it, or the folder that would hold it, else the
    /// first whose path is not known.
    fn entry(&self, database: &Path) -> Option<&Node> {
        let unknown = |node: &&Node| node.text("path").is_some_and(is_unknown);
        let nodes = || databases(&self.root).map(|(_, node)| node);
        self.own_entry(database)
            .or_else(|| nodes().find(|node| is_inside(node, database).is_some()))
            .or_else(|| nodes().find(unknown))
    }

    /// The entry that names `database` by its path.
    fn own_entry(&self, database: &Path) -> Option<&Node> {
        let wanted = absolute(&database.to_string_lossy());
        databases(&self.root).map(|(_, node)| node).find(|node| {
            let path = node.text("path");
            path.is_some_and(|path| absolute(path) == wanted)
        })
    }

    /// The path of `database` from the folder on that it is named by, where no path of its own does.
    fn inside_folder(&self, database: &Path) -> Option<PathBuf> {
        if self.own_entry(database).is_some() {
            return None;
        }
        databases(&self.root).find_map(|(_, node)| is_inside(node, database))
    }

    /// Everything that bites.
    pub fn lint(&self, around: Surroundings<'_>) -> Vec<Finding> {
        let mut findings = Vec::new();
        findings.extend(self.credentials());
        findings.extend(self.database(around));
        findings.extend(self.missing_variables());
        findings.extend(self.prefix(around));
        findings.extend(self.application());
        findings.extend(self.restore(around));
        match around.version {
            Some(version) if version < command::REFRESHES => {
                findings.extend(self.counted_from_start(version));
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
                    "it holds {}, which Litestream never renews, and uses without the session token",
                    keys.join(" and ")
                ),
                "remove it: edgerepl provides the credentials",
            )
        })
    }

    fn database(&self, around: Surroundings<'_>) -> Option<Finding> {
        let missing = around.databases.iter().filter(|path| !self.names(path));
        let missing: Vec<String> = missing.map(|path| path.display().to_string()).collect();
        if missing.is_empty() {
            return None;
        }
        let named = self.named().into_iter().map(|entry| match entry.named {
            Named::Folder(folder) => folder.path.join(&folder.pattern).display().to_string(),
            named => named.to_string(),
        });
        let named: Vec<String> = named.collect();
        Some(fault(
            format!(
                "it does not name the database {}; it names {named:?}",
                missing.join(" or ")
            ),
            "set the same path there and in [database] path",
        ))
    }

    /// A variable without a value makes many devices write to one place.
    fn missing_variables(&self) -> Option<Finding> {
        let found = replicas(&self.marked)
            .into_iter()
            .find_map(|(place, replica)| {
                WHEREABOUTS.iter().find_map(|key| {
                    let value = replica.text(key)?;
                    let missing = self.expanded.missing_in(value).next()?;
                    Some((format!("{place}{key}"), missing.to_owned()))
                })
            });
        let (place, name) = found?;
        if self.is_open {
            return Some(notice(
                format!("{place} depends on ${{{name}}}, which only Litestream's unit can set"),
                "make sure that the unit sets it, or use ${EDGEREPL_THING_NAME}",
            ));
        }
        Some(fault(
            format!("{place} uses the variable ${{{name}}}, which is unset or empty"),
            "correct its name, set it in edgerepl's environment, or use ${EDGEREPL_THING_NAME}",
        ))
    }

    fn prefix(&self, around: Surroundings<'_>) -> Option<Finding> {
        let (place, _) = replicas(&self.root).into_iter().find(|(_, replica)| {
            let words = ["path", "url"].map(|key| replica.text(key).unwrap_or_default());
            let names_thing = words.iter().any(|word| {
                is_unknown(word) || around.thing_name.is_some_and(|name| word.contains(name))
            });
            let is_local = match replica.text("url") {
                Some(url) => url.starts_with("file:"),
                None => replica.text("type").is_none_or(|kind| kind == "file"),
            };
            !names_thing && !is_local
        })?;
        Some(notice(
            format!(
                "{place}path does not name the thing: two devices with this file overwrite each \
                 other's replica"
            ),
            "put ${EDGEREPL_THING_NAME} into the path",
        ))
    }

    fn application(&self) -> Option<Finding> {
        let place = match self.root.text("exec") {
            Some(_) => "it has exec",
            None if self.executes => "Litestream's command line has -exec",
            None => return None,
        };
        Some(notice(
            format!(
                "{place}: the application gets Litestream's credentials, and stops and starts with \
                 Litestream"
            ),
            "start the application from the init system",
        ))
    }

    fn restore(&self, around: Surroundings<'_>) -> Option<Finding> {
        let restored = |path: &&Path| self.restores_missing(path);
        around.databases.iter().any(restored).then(|| {
            notice(
                "restore-if-db-not-exists is set: Litestream restores a missing database from the \
                 replica at its start",
                "remove it if a new device must start with an empty database",
            )
        })
    }

    fn socket(&self, around: Surroundings<'_>) -> Option<Finding> {
        if !self.has_socket() {
            return Some(notice(
                "its control socket is not enabled: nothing shows whether the replica follows",
                format!(
                    "add socket: {{ enabled: true, path: {}, permissions: 0600 }}",
                    around.control_socket.display()
                ),
            ));
        }
        let socket = self.root.get("socket");
        let path = socket
            .and_then(|socket| socket.text("path"))
            .unwrap_or("/var/run/litestream.sock");
        let agrees = Path::new(path) == around.control_socket || is_unknown(path);
        (!agrees).then(|| {
            fault(
                format!(
                    "its control socket is {path}, but edgerepl uses {}",
                    around.control_socket.display()
                ),
                "set the same path in its socket.path and in [replication] control_socket",
            )
        })
    }

    fn forgotten_keys(&self) -> Option<Finding> {
        let replicas = replicas(&self.root);
        let forgotten: Vec<String> = replicas
            .iter()
            .flat_map(|(place, replica)| {
                let keys = KEYS_OF_0_3.iter().filter(|key| replica.text(key).is_some());
                keys.map(move |key| format!("{place}{key}"))
            })
            .collect();
        (!forgotten.is_empty()).then(|| {
            notice(
                format!(
                    "Litestream 0.5 ignores {} and uses its default of 24 h",
                    forgotten.join(" and ")
                ),
                "set snapshot.interval and snapshot.retention at the top of the file",
            )
        })
    }

    /// What 0.3 counts from its start: a rotation starts it. 0.5 goes by what is on the replica.
    fn counted_from_start(&self, version: (u32, u32, u32)) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (place, replica) in replicas(&self.root) {
            let too_long = |key: &str, default: Option<&str>| {
                let interval = replica.text(key).or(default)?.to_owned();
                let length = go_duration(&interval);
                length
                    .is_none_or(|length| length >= SOONEST_ROTATION)
                    .then_some(interval)
            };
            if let Some(interval) = too_long("retention-check-interval", Some("1h")) {
                findings.push(notice(
                    format!(
                        "{place}retention-check-interval is {interval}, which Litestream 0.3 \
                         counts from its start: where rotations are closer together nothing old is \
                         ever removed from S3"
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
}

/// All databases below `root`, with where they are in the file.
fn databases(root: &Node) -> impl Iterator<Item = (String, &Node)> {
    let databases = root.list("dbs");
    databases
        .enumerate()
        .map(|(number, node)| (format!("dbs[{number}]."), node))
}

/// The path of `database` from the folder on that `entry` names, where that would hold it.
fn is_inside(entry: &Node, database: &Path) -> Option<PathBuf> {
    let wanted = absolute(&database.to_string_lossy());
    match entry.text("path") {
        Some(_) => None,
        None => Folder::of(entry)?.holds(&wanted),
    }
}

/// The replica of an entry: Litestream 0.5 has one, also where it is the only one of a list.
fn replica_of(entry: &Node) -> Option<&Node> {
    entry
        .get("replica")
        .or_else(|| entry.list("replicas").next())
}

/// The server of a replica in S3 or a store like it.
fn store(replica: &Node, region: &str) -> Option<String> {
    let url = replica.text("url").unwrap_or_default();
    if replica.text("bucket").is_none() && !url.starts_with("s3://") {
        return None;
    }
    let of_url = |wanted: &str| {
        let (_, query) = url.split_once('?')?;
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(key, value)| (key == wanted).then_some(value))
    };
    let told = |key: &str| {
        replica
            .text(key)
            .or_else(|| of_url(key))
            .filter(|v| !v.is_empty())
    };
    let Some(endpoint) = told("endpoint") else {
        let region = told("region").unwrap_or(region);
        let domain = match region.starts_with("cn-") {
            true => "amazonaws.com.cn",
            false => "amazonaws.com",
        };
        return (!is_unknown(region)).then(|| format!("s3.{region}.{domain}:443"));
    };
    let (port, rest) = match endpoint.split_once("://") {
        Some(("http", rest)) => (80, rest),
        Some((_, rest)) => (443, rest),
        None => (443, endpoint),
    };
    let authority = rest.split('/').next()?;
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let is_usable = !authority.is_empty() && !authority.contains('@') && !is_unknown(endpoint);
    is_usable.then(|| match has_port {
        true => authority.to_owned(),
        false => format!("{authority}:{port}"),
    })
}

/// All replicas of all databases.
fn replicas(root: &Node) -> Vec<(String, &Node)> {
    let mut replicas = Vec::new();
    for (place, database) in databases(root) {
        if let Some(one) = database.get("replica") {
            replicas.push((format!("{place}replica."), one));
        }
        let many = database.list("replicas").enumerate();
        replicas.extend(many.map(|(number, node)| (format!("{place}replicas[{number}]."), node)));
    }
    replicas
}

/// A path as Litestream takes it: without SQLite's prefix, from the root on, and nothing in it
/// twice.
fn absolute(path: &str) -> PathBuf {
    let path = ["sqlite3://", "sqlite://"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .unwrap_or(path);
    let home = || env::home_dir().unwrap_or_default();
    let whole = match path.strip_prefix('~') {
        Some("") => home(),
        Some(rest) if rest.starts_with('/') => home().join(rest.trim_start_matches('/')),
        _ => env::current_dir().unwrap_or_default().join(path),
    };
    clean(&whole)
}

/// A path with nothing in it twice.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean
}

fn fault(cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding {
        is_fault: true,
        cause: cause.into(),
        next: next.into(),
    }
}

pub(crate) fn notice(cause: impl Into<String>, next: impl Into<String>) -> Finding {
    Finding {
        is_fault: false,
        ..fault(cause, next)
    }
}
