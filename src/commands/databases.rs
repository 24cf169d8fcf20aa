//! The databases that a command is about: those of edgerepl's configuration, then what else
//! Litestream's names; or those of them that somebody names.
//!
//! Owns the order, the names, and that each database is there once. Never opens a database.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::{Database, Settings};
use crate::litestream::config_file::{Configuration, Found, Identity, Named};

/// A database of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Subject {
    /// As edgerepl's configuration has it; one that Litestream alone names has no heartbeat.
    pub(crate) database: Database,
    /// Its path in Litestream's configuration, which may be spelled otherwise.
    pub(crate) in_litestream: PathBuf,
}

/// The databases, each once.
#[derive(Debug)]
pub(crate) struct Subjects {
    /// In the order of edgerepl's configuration, then of Litestream's.
    pub(crate) all: Vec<Subject>,
    /// What Litestream may replicate beside them, in words.
    pub(crate) unknown: Vec<String>,
}

impl Subjects {
    /// All of them. Of a Litestream whose configuration is not known, those of edgerepl's.
    pub(crate) fn of(settings: &Settings, configuration: Option<&Configuration>) -> Self {
        let found = configuration.map(Configuration::databases);
        Self::among(settings, found.unwrap_or_default())
    }

    /// All of them, where it is known what Litestream's configuration names.
    pub(crate) fn among(settings: &Settings, found: Found) -> Self {
        let named: Vec<(Identity, PathBuf)> = found
            .databases
            .into_iter()
            .map(|path| (Identity::of(&path), path))
            .collect();
        let mut all: Vec<Subject> = Vec::new();
        let mut known: Vec<Identity> = Vec::new();
        let mut unnamed = 0;
        for database in settings.databases.iter() {
            let identity = Identity::of(&database.path);
            if known.contains(&identity) {
                continue;
            }
            let in_litestream = named.iter().find(|(other, _)| *other == identity);
            unnamed += usize::from(in_litestream.is_none());
            all.push(Subject {
                database: database.clone(),
                in_litestream: in_litestream
                    .map_or_else(|| database.path.clone(), |(_, path)| path.clone()),
            });
            known.push(identity);
        }
        let others = named.into_iter().filter(|(id, _)| !known.contains(id));
        all.extend(others.map(|(_, path)| Subject::of_litestream(path)));
        // One whose path only the environment tells may be one that is not named otherwise.
        let mut unknown = found.unseen;
        for named in found.unknown {
            match named {
                Named::Unknown(_) if unnamed > 0 => unnamed -= 1,
                other => unknown.push(other.to_string()),
            }
        }
        Self { all, unknown }
    }

    /// Those that are named, by path or by file name; all where nothing is named.
    ///
    /// # Errors
    /// One sentence with the known ones, where a name is of none or of more than one.
    pub(crate) fn chosen(
        self,
        names: &[PathBuf],
        configuration: Option<&Configuration>,
    ) -> Result<Self, String> {
        if names.is_empty() {
            return Ok(self);
        }
        let (mut all, mut chosen) = (self.all, Vec::new());
        for name in names {
            let matching = positions(&all, name);
            match matching[..] {
                [one] => chosen.push(one),
                // A folder of Litestream's would hold it, and it is missing there.
                [] if name.is_absolute() && configuration.is_some_and(|c| c.names(name)) => {
                    chosen.push(all.len());
                    all.push(Subject::of_litestream(name.clone()));
                }
                [] => {
                    return Err(format!(
                        "{} is no database that edgerepl or Litestream is configured with; name \
                         one of {}",
                        name.display(),
                        listed(all.iter())
                    ));
                }
                _ => {
                    return Err(format!(
                        "{} is the name of more than one database; name one by its path: {}",
                        name.display(),
                        listed(matching.iter().map(|at| &all[*at]))
                    ));
                }
            }
        }
        let is_chosen = |at: usize| chosen.contains(&at);
        let all = all.into_iter().enumerate();
        Ok(Self {
            all: all
                .filter(|(at, _)| is_chosen(*at))
                .map(|(_, s)| s)
                .collect(),
            unknown: Vec::new(),
        })
    }

    /// The name of each for people: its file's where no other has that, else its path.
    pub(crate) fn labels(&self) -> Vec<String> {
        let file = |subject: &Subject| {
            let name = subject.path().file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for subject in &self.all {
            *times.entry(file(subject)).or_default() += 1;
        }
        let label = |subject: &Subject| match times.get(&file(subject)) {
            Some(1) => file(subject),
            _ => subject.path().display().to_string(),
        };
        self.all.iter().map(label).collect()
    }
}

impl Subject {
    fn of_litestream(path: PathBuf) -> Self {
        Self {
            database: Database {
                path: path.clone(),
                wal_guard: None,
                heartbeat: false,
            },
            in_litestream: path,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.database.path
    }
}

/// Where in `all` those are that `name` may mean: by path, else by file name.
fn positions(all: &[Subject], name: &Path) -> Vec<usize> {
    let that = |is_it: &dyn Fn(&Subject) -> bool| -> Vec<usize> {
        let matching = all.iter().enumerate().filter(|(_, subject)| is_it(subject));
        matching.map(|(at, _)| at).collect()
    };
    let by_path = that(&|s| s.path() == name || s.in_litestream == name);
    match by_path.is_empty() {
        false => by_path,
        true => that(&|s| s.path().file_name() == Some(name.as_os_str())),
    }
}

fn listed<'a>(subjects: impl Iterator<Item = &'a Subject>) -> String {
    let paths: Vec<_> = subjects.map(|s| s.path().display().to_string()).collect();
    paths.join(", ")
}
