//! Litestream's command line, derived from the one that the configuration gives.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `program` is: itself where it is a path, else the first match in `PATH`.
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

/// The command that drops Litestream's local state for `database`, made from the one that
/// replicates: `litestream reset -config FILE DATABASE`.
///
/// `None` where the given command is not `litestream replicate`, so that nobody can tell.
pub fn reset(replicate: &[String], database: &Path) -> Option<Command> {
    let verb = replicate.iter().position(|word| word == "replicate")?;
    let mut command = Command::new(replicate.first()?);
    command.args(&replicate[1..verb]).arg("reset");
    let mut rest = replicate[verb + 1..].iter();
    while let Some(word) = rest.next() {
        match word.trim_start_matches('-') {
            "config" => drop(command.arg("-config").arg(rest.next()?)),
            flag if flag.starts_with("config=") => drop(command.arg(word)),
            "no-expand-env" => drop(command.arg(word)),
            _ => {}
        }
    }
    command.arg(database);
    Some(command)
}

/// The configuration file that a command which replicates names.
pub fn configuration(replicate: &[String]) -> PathBuf {
    let mut words = replicate.iter().skip_while(|word| *word != "replicate");
    while let Some(word) = words.next() {
        match word.trim_start_matches('-') {
            "config" if word.starts_with('-') => {
                return words.next().map_or(DEFAULT_PATH.into(), PathBuf::from);
            }
            flag => {
                if let Some(path) = flag.strip_prefix("config=") {
                    return path.into();
                }
            }
        }
    }
    DEFAULT_PATH.into()
}

/// Where Litestream looks unless it is told.
const DEFAULT_PATH: &str = "/etc/litestream.yml";

/// The words of the command that restores to `output`, made from the one that replicates: all but the
/// database, which comes last. Up to the transaction `upto`; or to the end, where there is a replica.
///
/// # Errors
/// Where the given command is not `litestream replicate`, so that nobody can tell.
pub fn restore(
    replicate: &[String],
    output: &Path,
    upto: Option<u64>,
) -> Result<Vec<String>, String> {
    let verb = replicate.iter().position(|word| word == "replicate");
    let verb = verb.ok_or("[replication] command is not `litestream replicate`")?;
    let mut words = replicate[..verb].to_vec();
    words.extend(["restore", "-config"].map(str::to_owned));
    words.push(configuration(replicate).to_string_lossy().into_owned());
    if replicate
        .iter()
        .any(|word| word.trim_start_matches('-') == "no-expand-env")
    {
        words.push("-no-expand-env".to_owned());
    }
    match upto {
        Some(transaction) => words.extend(["-txid".to_owned(), format!("{transaction:016x}")]),
        None => words.push("-if-replica-exists".to_owned()),
    }
    words.extend(["-o".to_owned(), output.to_string_lossy().into_owned()]);
    Ok(words)
}

/// Litestream of this version and later asks for new credentials by itself, where it is told whom.
pub const REFRESHES: (u32, u32, u32) = (0, 5, 0);

/// The command that prints Litestream's version, made from the one that replicates.
///
/// # Errors
/// Where the given command is not `litestream replicate`, so that nobody can tell.
pub fn version_command(replicate: &[String]) -> Result<Command, String> {
    let verb = replicate.iter().position(|word| word == "replicate");
    let words = verb.map(|verb| &replicate[..verb]).unwrap_or_default();
    let (program, rest) = words
        .split_first()
        .ok_or("[replication] command is not `litestream replicate`")?;
    let mut command = Command::new(locate(program)?);
    command.args(rest).arg("version");
    Ok(command)
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
    use super::*;

    #[test]
    fn derives_the_reset_from_the_replicate_command() {
        let words = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let reset = |line: &str| {
            let command = reset(&words(line), Path::new("/data/app.db"))?;
            let arguments = command.get_args().map(|a| a.to_string_lossy().into_owned());
            Some(arguments.collect::<Vec<_>>().join(" "))
        };
        for (given, wanted) in [
            (
                "litestream replicate -config /etc/l.yml",
                Some("reset -config /etc/l.yml /data/app.db"),
            ),
            (
                "/bin/nice litestream replicate",
                Some("litestream reset /data/app.db"),
            ),
            (
                "litestream replicate -exec sleep --config=/etc/l.yml -no-expand-env",
                Some("reset --config=/etc/l.yml -no-expand-env /data/app.db"),
            ),
            ("wrapper -config /etc/l.yml", None),
            ("litestream replicate -config", None),
        ] {
            assert_eq!(reset(given).as_deref(), wanted, "{given}");
        }
    }

    #[test]
    fn finds_the_configuration() {
        let path = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            configuration(&words)
        };
        assert_eq!(
            path("litestream replicate -config /a.yml"),
            Path::new("/a.yml")
        );
        assert_eq!(
            path("nice litestream replicate --config=/b.yml"),
            Path::new("/b.yml")
        );
        assert_eq!(path("litestream replicate"), Path::new(DEFAULT_PATH));
    }

    #[test]
    fn reads_both_ways_of_writing_a_version() {
        assert_eq!(version("0.5.17\n"), Some((0, 5, 17)));
        assert_eq!(version("v0.3.13"), Some((0, 3, 13)));
        assert_eq!(version("0.5.0-beta1"), Some((0, 5, 0)));
        assert_eq!(version("(development build)"), None);
    }
}
