//! The numbers by which databases are called in the loop.
//!
//! Owns the path of each number, in edgerepl's spelling and in Litestream's. Two paths of one file have one
//! number. Never forgets a number, nor gives one twice.

use std::path::{Path, PathBuf};

use crate::agent::Database;
use crate::litestream::config_file::Identity;

#[derive(Debug, Default)]
pub(super) struct Paths(Vec<Known>);

#[derive(Debug)]
struct Known {
    path: PathBuf,
    /// As Litestream's configuration spells it, if it does.
    in_litestream: Option<PathBuf>,
}

impl Paths {
    /// The number of a database; `None` if there are more than anybody has.
    pub(super) fn number(&mut self, path: &Path) -> Option<Database> {
        if let Some(at) = self.find(path) {
            return Some(at);
        }
        let number = u16::try_from(self.0.len()).ok()?;
        self.0.push(Known {
            path: path.to_owned(),
            in_litestream: None,
        });
        Some(Database(number))
    }

    /// The same of one that Litestream names so.
    pub(super) fn number_in_litestream(&mut self, path: &Path) -> Option<Database> {
        let database = self.number(path)?;
        self.0[usize::from(database.0)].in_litestream = Some(path.to_owned());
        Some(database)
    }

    /// The paths of all that ever had a number.
    pub(super) fn all(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|known| known.path.as_path())
    }

    /// Its path.
    pub(super) fn path(&self, database: Database) -> &Path {
        &self.0[usize::from(database.0)].path
    }

    /// Its path for Litestream.
    pub(super) fn in_litestream(&self, database: Database) -> &Path {
        let known = &self.0[usize::from(database.0)];
        known.in_litestream.as_ref().unwrap_or(&known.path)
    }

    /// The one database whose file has this name for Litestream; `None` where several have.
    pub(super) fn named(&self, name: &str) -> Option<Database> {
        let is_named = |known: &&Known| {
            let path = known.in_litestream.as_ref().unwrap_or(&known.path);
            path.file_name().is_some_and(|own| own == name)
        };
        let mut all = self.0.iter().filter(is_named);
        let (Some(only), None) = (all.next(), all.next()) else {
            return None;
        };
        self.find(&only.path)
    }

    /// The number that a database has already.
    pub(super) fn find(&self, path: &Path) -> Option<Database> {
        let same =
            |known: &Known| known.path == path || known.in_litestream.as_deref() == Some(path);
        let position = self.0.iter().position(same).or_else(|| {
            let wanted = Identity::of(path);
            let same_file = |known: &Known| Identity::of(&known.path) == wanted;
            self.0.iter().position(same_file)
        })?;
        u16::try_from(position).ok().map(Database)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn two_paths_of_one_file_have_one_number() {
        let folder = std::env::temp_dir().join(format!("edgerepl-paths-{}", std::process::id()));
        fs::create_dir_all(folder.join("real")).expect("a folder");
        symlink(folder.join("real"), folder.join("link")).expect("a link");
        fs::write(folder.join("real/app.db"), "").expect("a file");
        let mut paths = Paths::default();
        let mut number = |path: &str| paths.number(&folder.join(path)).expect("a number").0;
        let app = number("real/app.db");
        assert_eq!(number("link/app.db"), app);
        assert_eq!(number("real/../real/./app.db"), app);
        // One that is not there yet is where it will be.
        let other = number("link/other.db");
        assert_eq!(number("real/other.db"), other);
        assert_ne!(app, other);
        let spelled = folder.join("link/app.db");
        let database = paths.number_in_litestream(&spelled).expect("a number");
        assert_eq!(database.0, app);
        assert_eq!(paths.path(database), folder.join("real/app.db"));
        assert_eq!(paths.in_litestream(database), spelled);
        fs::remove_dir_all(folder).expect("the folder");
    }
}
