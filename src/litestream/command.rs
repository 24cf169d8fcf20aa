//! Litestream's command lines, all derived from `[replication] command`.
//!
//! Owns the parsing of that command, and the words of the others. Never runs one.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{self, Path, PathBuf};
use std::process::Command;

use super::moment::Moment;

/// The path of `program`: itself if it is a path, else the first match in `PATH`.
///
/// # Errors
/// One sentence for the operator.
pub fn locate(program: &str) -> Result<PathBuf, String> {
    let runnable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    let found = if program.contains('/') {
        Some(PathBuf::from(program)).filter(runnable)
    } else {
        let search = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&search)
            .map(|folder| folder.join(program))
            .find(runnable)
    };
    found.ok_or_else(|| {
        format!(
            "{program} isn't there or can't be run; install Litestream or name it in \
             [replication] command"
        )
    })
}

/// Litestream's default configuration file.
const DEFAULT_CONFIGURATION: &str = "/etc/litestream.yml";

/// Litestream's words where there is nothing to restore.
pub const NOTHING_TO_RESTORE: &str = "no matching backup files";

/// The file of the runtime directory in which nothing ever is: plans are not carried out.
pub(crate) const NO_COPY: &str = "no-copy";

/// Its message if it is too old for [`Replicate::plan`].
pub const KNOWS_NO_PLAN: &str = "flag provided but not defined";

/// The first Litestream that asks for new credentials itself, through `credential_process`.
pub const REFRESHES: (u32, u32, u32) = (0, 5, 0);

/// Up to where a replica is restored.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Upto {
    /// To its end, where there is a replica.
    End,
    /// This transaction.
    Transaction(u64),
    /// The state of this moment.
    Moment(Moment),
}

/// A command that replicates, understood: `[WRAPPER…] litestream replicate [-config FILE] …`. All
/// other commands of Litestream's are made of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replicate {
    /// The words before `replicate`: the program, and any wrapper.
    litestream: Vec<String>,
    configuration: PathBuf,
    /// Variables in the configuration are not expanded.
    is_literal: bool,
    restores: bool,
    executes: bool,
}

impl Replicate {
    /// Understands `[replication] command`.
    ///
    /// # Errors
    /// One sentence, if it is another command.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        const STRANGE: &str = "[replication] command is not `litestream replicate`";
        let verb = words.iter().position(|word| word == "replicate");
        let verb = verb.filter(|verb| *verb > 0).ok_or(STRANGE)?;
        let mut command = Self {
            litestream: words[..verb].to_vec(),
            configuration: DEFAULT_CONFIGURATION.into(),
            is_literal: false,
            restores: false,
            executes: false,
        };
        let mut rest = words[verb + 1..].iter();
        while let Some(word) = rest.next() {
            match word
                .strip_prefix('-')
                .map(|flag| flag.trim_start_matches('-'))
            {
                Some("config") => command.configuration = rest.next().ok_or(STRANGE)?.into(),
                Some("no-expand-env" | "no-expand-env=true") => command.is_literal = true,
                Some("restore-if-db-not-exists" | "restore-if-db-not-exists=true") => {
                    command.restores = true;
                }
                Some("exec") => {
                    command.executes = true;
                    rest.next();
                }
                Some(flag) => {
                    command.executes |= flag.starts_with("exec=");
                    if let Some(path) = flag.strip_prefix("config=") {
                        command.configuration = path.into();
                    }
                }
                None => {}
            }
        }
        Ok(command)
    }

    /// Litestream's configuration file.
    pub fn configuration(&self) -> &Path {
        &self.configuration
    }

    /// Whether variables in the configuration stay as they are.
    pub fn is_literal(&self) -> bool {
        self.is_literal
    }

    /// Whether Litestream restores a database that is missing, before it replicates.
    pub fn restores_missing(&self) -> bool {
        self.restores
    }

    /// Whether Litestream runs an application as its child.
    pub fn executes(&self) -> bool {
        self.executes
    }

    /// The command that lists the databases of the configuration: it reads that, and nothing else.
    pub fn databases(&self) -> Command {
        let words = self.part("databases");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// The command that drops Litestream's local state for `database`.
    pub fn reset(&self, database: &Path) -> Command {
        let words = self.part("reset");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(database);
        command
    }

    /// The words of the command that restores to `output`: all but the database, which comes last.
    /// By this configuration, or by `own`, a file in the folder that it is run in.
    pub fn restore(&self, output: &Path, upto: &Upto, own: Option<&Path>) -> Vec<String> {
        let mut words = self.part_of(own, "restore");
        match upto {
            Upto::End => words.push("-if-replica-exists".to_owned()),
            Upto::Transaction(number) => {
                words.extend(["-txid".to_owned(), format!("{number:016x}")])
            }
            Upto::Moment(moment) => words.extend(["-timestamp".to_owned(), moment.to_string()]),
        }
        words.extend(["-o".to_owned(), output.to_string_lossy().into_owned()]);
        words
    }

    /// The words of the command that says what it would restore of `database`, and restores
    /// nothing: 0.5 and later. `output` is a path where nothing is. By this configuration, or by the file
    /// `own`, in which nothing is to be expanded.
    pub fn plan(&self, database: &Path, output: &Path, own: Option<&Path>) -> Vec<String> {
        let mut words = self.part_of(own, "restore");
        let [output, database] = [output, database].map(|path| path.to_string_lossy().into_owned());
        words.extend(["-dry-run".to_owned(), "-o".to_owned(), output, database]);
        words
    }

    /// The words of the command that lists the objects of a level of `database`: 0.5 and later. By this
    /// configuration, or by the file `own`, in which nothing is to be expanded.
    pub(crate) fn list(&self, level: u64, database: &Path, own: Option<&Path>) -> Vec<String> {
        let mut words = self.part_of(own, "ltx");
        let database = database.to_string_lossy().into_owned();
        words.extend([
            "-level".to_owned(),
            level.to_string(),
            "-json".to_owned(),
            database,
        ]);
        words
    }

    /// The words of the command that uploads a new snapshot of all databases, and ends: 0.5 and later. By
    /// this configuration, or by the file `own`, in which nothing is to be expanded.
    pub(crate) fn snapshot(&self, own: Option<&Path>) -> Vec<String> {
        let mut words = self.part_of(own, "replicate");
        words.extend(["-once", "-force-snapshot"].map(str::to_owned));
        words
    }

    /// The words of the command that lists what of `database` could be restored: before 0.5.
    pub fn snapshots(&self, database: &Path) -> Vec<String> {
        let mut words = self.part("snapshots");
        words.push(database.to_string_lossy().into_owned());
        words
    }

    /// The command that prints Litestream's version.
    ///
    /// # Errors
    /// One sentence where its program isn't there.
    pub fn version(&self) -> Result<Command, String> {
        let mut command = Command::new(locate(&self.litestream[0])?);
        command.args(&self.litestream[1..]).arg("version");
        Ok(command)
    }

    /// Another command by this configuration, or by `own`, in which nothing is to be expanded.
    fn part_of(&self, own: Option<&Path>, name: &str) -> Vec<String> {
        match own {
            Some(file) => self.part_by(name, file, true),
            None => self.part(name),
        }
    }

    /// Another command that reads the same configuration.
    fn part(&self, name: &str) -> Vec<String> {
        // It may be run from another folder.
        let file = path::absolute(&self.configuration).unwrap_or(self.configuration.clone());
        self.part_by(name, &file, self.is_literal)
    }

    fn part_by(&self, name: &str, configuration: &Path, is_literal: bool) -> Vec<String> {
        let mut words = self.litestream.clone();
        words.extend([name, "-config"].map(str::to_owned));
        words.push(configuration.to_string_lossy().into_owned());
        if is_literal {
            words.push("-no-expand-env".to_owned());
        }
        words
    }
}

/// The configuration that a command reads; Litestream's default if the command can't be parsed.
pub fn configuration(words: &[String]) -> PathBuf {
    Replicate::parse(words).map_or(DEFAULT_CONFIGURATION.into(), |command| {
        command.configuration
    })
}

/// The last thing that it said on standard error before it failed, as part of a sentence.
pub(crate) fn last_words(said: &str) -> String {
    let last = said.lines().rev().find(|line| !line.trim().is_empty());
    let last = last.unwrap_or("it gives no reason").chars();
    last.filter(|c| !c.is_control()).take(500).collect()
}

/// The version in what `litestream version` prints: `0.5.17`, `v0.3.13`.
pub fn version(printed: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = printed
        .trim()
        .trim_start_matches('v')
        .split(['.', '-', '+']);
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?, number()?))
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    fn line(command: &Command) -> String {
        let words = iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }

    #[test]
    fn derives_all_commands_from_the_one_that_replicates() {
        let database = Path::new("/data/app.db");
        for (given, reset, restore) in [
            (
                "litestream replicate -config /etc/l.yml",
                "litestream reset -config /etc/l.yml /data/app.db",
                "litestream restore -config /etc/l.yml -txid 000000000000001a -o /copy",
            ),
            (
                "/bin/nice litestream replicate",
                "/bin/nice litestream reset -config /etc/litestream.yml /data/app.db",
                "/bin/nice litestream restore -config /etc/litestream.yml -txid 000000000000001a -o /copy",
            ),
            (
                "litestream replicate -exec config --config=/l.yml -no-expand-env",
                "litestream reset -config /l.yml -no-expand-env /data/app.db",
                "litestream restore -config /l.yml -no-expand-env -txid 000000000000001a -o /copy",
            ),
        ] {
            let command = Replicate::parse(&words(given)).expect(given);
            assert_eq!(line(&command.reset(database)), reset, "{given}");
            let made = command.restore(Path::new("/copy"), &Upto::Transaction(26), None);
            assert_eq!(made.join(" "), restore, "{given}");
        }
        let command = Replicate::parse(&words("litestream replicate")).expect("a command");
        let made = command.restore(Path::new("/copy"), &Upto::End, None);
        assert!(made.contains(&"-if-replica-exists".to_owned()), "{made:?}");
        let moment = Upto::Moment("2026-11-29T12:00:00Z".parse().expect("a moment"));
        let own = Path::new("own.yml");
        let made = command.restore(Path::new("/copy"), &moment, Some(own));
        let wanted = "litestream restore -config own.yml -no-expand-env \
                      -timestamp 2026-11-29T12:00:00Z -o /copy";
        assert_eq!(made.join(" "), wanted);
    }

    #[test]
    fn what_nobody_can_understand_is_said_to_be_so() {
        for line in [
            "wrapper -config /etc/l.yml",
            "replicate",
            "litestream replicate -config",
        ] {
            assert!(Replicate::parse(&words(line)).is_err(), "{line}");
            let found = configuration(&words(line));
            assert_eq!(found, Path::new(DEFAULT_CONFIGURATION));
        }
    }

    #[test]
    fn reads_both_ways_of_writing_a_version() {
        assert_eq!(version("0.5.17\n"), Some((0, 5, 17)));
        assert_eq!(version("v0.3.13"), Some((0, 3, 13)));
        assert_eq!(version("0.5.0-beta1"), Some((0, 5, 0)));
        assert_eq!(version("(development build)"), None);
    }
}
