//! The layers of TOML files, and the typed reading of their merged keys.
//!
//! Owns the order of the layers, and the file of each key, which errors name. Never knows a key
//! itself: the caller passes the schema.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::ConfigError;
use super::value::shown;

/// The largest file that is read; a device file given by mistake is larger.
const FILE_LIMIT: u64 = 1 << 20;

type Schema = [(&'static str, &'static [&'static str])];

/// All files, merged key by key: later files win.
pub(super) struct Layers {
    main: PathBuf,
    values: BTreeMap<(String, String), (Value, PathBuf)>,
}

impl Layers {
    /// Reads `vendor/*.toml`, then `main`, then `main.d/*.toml`, each folder by file name.
    pub(super) fn read(vendor: &Path, main: &Path, schema: &Schema) -> Result<Self, ConfigError> {
        let mut drop_ins = main.as_os_str().to_owned();
        drop_ins.push(".d");
        let mut files = fragments(vendor)?;
        match main.metadata() {
            Ok(_) => files.push(main.to_owned()),
            Err(e) if e.kind() == ErrorKind::NotFound && !files.is_empty() => {}
            Err(e) => return Err(unreadable(main, &e)),
        }
        files.extend(fragments(Path::new(&drop_ins))?);
        let mut layers = Self {
            main: main.to_owned(),
            values: BTreeMap::new(),
        };
        for file in files {
            layers.add(&file, schema)?;
        }
        Ok(layers)
    }

    fn add(&mut self, file: &Path, schema: &Schema) -> Result<(), ConfigError> {
        let mut text = String::new();
        fs::File::open(file)
            .and_then(|f| f.take(FILE_LIMIT).read_to_string(&mut text))
            .map_err(|e| unreadable(file, &e))?;
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e
                .span()
                .map_or(1, |s| 1 + text[..s.start].matches('\n').count());
            ConfigError(format!(
                "{}:{line}: is not TOML: {}",
                file.display(),
                e.message()
            ))
        })?;
        for (section, keys) in table {
            let known = schema.iter().find(|(name, _)| *name == section);
            let Some((_, known)) = known else {
                return Err(unknown(
                    file,
                    "section",
                    &section,
                    schema.iter().map(|(n, _)| *n),
                ));
            };
            let Value::Table(keys) = keys else {
                let cause = format!("{}: {section} must be a section", file.display());
                return Err(ConfigError(cause));
            };
            for (key, value) in keys {
                if !known.contains(&key.as_str()) {
                    let what = format!("key in [{section}]");
                    return Err(unknown(file, &what, &key, known.iter().copied()));
                }
                self.values
                    .insert((section.clone(), key), (value, file.to_owned()));
            }
        }
        Ok(())
    }

    /// One section, present or not.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        Section { layers: self, name }
    }
}

/// A section of the merged layers, read key by key.
pub(super) struct Section<'a> {
    layers: &'a Layers,
    name: &'static str,
}

impl<'a> Section<'a> {
    /// A required key.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.optional(key, parse)? {
            Some(value) => Ok(value),
            None => Err(self.error(key, "is missing".to_owned())),
        }
    }

    /// A key with a default, which is parsed in the same way.
    pub(super) fn parsed_or<T>(
        &self,
        key: &str,
        default: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = self.text(key)?.unwrap_or(default);
        parse(text).map_err(|cause| self.error(key, cause))
    }

    /// An optional key.
    pub(super) fn optional<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let text = self.text(key)?;
        text.map(parse)
            .transpose()
            .map_err(|cause| self.error(key, cause))
    }

    /// One of a few words.
    pub(super) fn choice<'s>(
        &'s self,
        key: &str,
        default: &'s str,
        words: &[&str],
    ) -> Result<&'s str, ConfigError> {
        let word = self.text(key)?.unwrap_or(default);
        if words.contains(&word) {
            return Ok(word);
        }
        let wanted = words
            .iter()
            .map(|w| format!("{w:?}"))
            .collect::<Vec<_>>()
            .join(" or ");
        Err(self.error(key, format!("must be {wanted}, not {}", shown(word))))
    }

    /// A program and its arguments.
    pub(super) fn command(&self, key: &str, default: &[&str]) -> Result<Vec<String>, ConfigError> {
        let cause = || {
            self.error(
                key,
                "must be a list of strings, the program first".to_owned(),
            )
        };
        let words = match self.value(key) {
            None => default.iter().map(|w| (*w).to_owned()).collect(),
            Some(Value::Array(words)) => words
                .iter()
                .map(|w| w.as_str().map(str::to_owned).ok_or_else(cause))
                .collect::<Result<Vec<_>, _>>()?,
            Some(_) => return Err(cause()),
        };
        if words.first().is_none_or(String::is_empty) || words.iter().any(|w| w.contains('\0')) {
            return Err(cause());
        }
        Ok(words)
    }

    /// An error about `key`, with the file that set it (or should).
    pub(super) fn error(&self, key: &str, cause: String) -> ConfigError {
        let place = (self.name.to_owned(), key.to_owned());
        let file = self
            .layers
            .values
            .get(&place)
            .map_or(&self.layers.main, |(_, file)| file);
        ConfigError(format!("{}: [{}] {key} {cause}", file.display(), self.name))
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, ConfigError> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => {
                let cause = format!("must be a string in quotes, not {}", other.type_str());
                Err(self.error(key, cause))
            }
        }
    }

    fn value(&self, key: &str) -> Option<&'a Value> {
        let place = (self.name.to_owned(), key.to_owned());
        self.layers.values.get(&place).map(|(value, _)| value)
    }
}

/// The `*.toml` files of a folder in the order of their names; none if the folder is missing.
fn fragments(folder: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(folder, &e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| unreadable(folder, &e))?.path();
        if path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError(format!("{}: can't be read: {error}", path.display()))
}

fn unknown<'a>(
    file: &Path,
    what: &str,
    word: &str,
    known: impl Iterator<Item = &'a str>,
) -> ConfigError {
    let nearest = known
        .min_by_key(|k| edit_distance(word, k))
        .unwrap_or_default();
    let file = file.display();
    // A line of a private key that was pasted without quotes may be read as a key of this file.
    let is_word = word.len() <= 32 && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let word = match is_word {
        true => format!("{word:?}"),
        false => "a word that is not shown, because it may be a secret".to_owned(),
    };
    ConfigError(format!(
        "{file}: unknown {what}: {word}; the nearest known one is {nearest:?}"
    ))
}

/// Levenshtein's distance, for words of a few letters.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let swapped = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = swapped.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
