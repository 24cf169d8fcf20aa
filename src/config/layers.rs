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

/// A section, and its keys.
pub(super) struct Known {
    pub(super) section: &'static str,
    pub(super) keys: &'static [&'static str],
    /// It may be given as a list: `[[section]]`.
    pub(super) repeats: bool,
}

/// All files, merged key by key: later files win. A list is one value: a later one replaces it whole.
pub(super) struct Layers {
    main: PathBuf,
    values: BTreeMap<Place, (Value, PathBuf)>,
    /// How many sections there are of each name that is given as a list.
    lists: BTreeMap<String, usize>,
}

/// A section's name, its number in a list (or 0), and a key.
type Place = (String, usize, String);

impl Layers {
    /// Reads `vendor/*.toml`, then `main`, then `main.d/*.toml`, each folder by file name.
    pub(super) fn read(vendor: &Path, main: &Path, schema: &[Known]) -> Result<Self, ConfigError> {
        match main.metadata() {
            Err(e) if e.kind() != ErrorKind::NotFound || fragments(vendor)?.is_empty() => {
                Err(unreadable(main, &e))
            }
            _ => Self::read_or_none(vendor, main, schema),
        }
    }

    /// The same where there may be no file at all yet.
    pub(super) fn read_or_none(
        vendor: &Path,
        main: &Path,
        schema: &[Known],
    ) -> Result<Self, ConfigError> {
        let mut files = fragments(vendor)?;
        match main.metadata() {
            Ok(_) => files.push(main.to_owned()),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(unreadable(main, &e)),
        }
        files.extend(fragments(&layers_beside(main))?);
        let mut layers = Self {
            main: main.to_owned(),
            values: BTreeMap::new(),
            lists: BTreeMap::new(),
        };
        for file in files {
            layers.add(&file, schema)?;
        }
        Ok(layers)
    }

    fn add(&mut self, file: &Path, schema: &[Known]) -> Result<(), ConfigError> {
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
        for (section, value) in table {
            let Some(known) = schema.iter().find(|known| known.section == section) else {
                let sections = schema.iter().map(|known| known.section);
                return Err(unknown(file, "section", &section, sections));
            };
            match value {
                Value::Table(keys) => {
                    if self.lists.remove(&section).is_some() {
                        self.forget(&section);
                    }
                    self.add_keys(file, known, 0, keys)?;
                }
                Value::Array(items) if known.repeats && !items.is_empty() => {
                    self.forget(&section);
                    self.lists.insert(section.clone(), items.len());
                    for (number, item) in items.into_iter().enumerate() {
                        let Value::Table(keys) = item else {
                            return Err(no_section(file, &section));
                        };
                        self.add_keys(file, known, number, keys)?;
                    }
                }
                _ => return Err(no_section(file, &section)),
            }
        }
        Ok(())
    }

    fn add_keys(
        &mut self,
        file: &Path,
        known: &Known,
        number: usize,
        keys: Table,
    ) -> Result<(), ConfigError> {
        for (key, value) in keys {
            if !known.keys.contains(&key.as_str()) {
                let what = format!("key in [{}]", known.section);
                return Err(unknown(file, &what, &key, known.keys.iter().copied()));
            }
            let place = (known.section.to_owned(), number, key);
            self.values.insert(place, (value, file.to_owned()));
        }
        Ok(())
    }

    fn forget(&mut self, section: &str) {
        self.values.retain(|(name, ..), _| name != section);
    }

    /// One section, present or not.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        let (number, is_listed) = (0, false);
        Section {
            layers: self,
            name,
            number,
            is_listed,
        }
    }

    /// All sections of a list, or the one section of that name.
    pub(super) fn sections(&self, name: &'static str) -> impl Iterator<Item = Section<'_>> {
        let count = self.lists.get(name);
        (0..count.copied().unwrap_or(1)).map(move |number| Section {
            layers: self,
            name,
            number,
            is_listed: count.is_some(),
        })
    }
}

/// A section of the merged layers, read key by key.
pub(super) struct Section<'a> {
    layers: &'a Layers,
    name: &'static str,
    number: usize,
    is_listed: bool,
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

    /// Whether one of the layers sets it.
    pub(super) fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// A number with a default, read by its text.
    pub(super) fn number_or<T>(
        &self,
        key: &str,
        default: T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        let text = match self.value(key) {
            None => return Ok(default),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Float(number)) => number.to_string(),
            Some(other) => {
                let cause = format!("must be a number without quotes, not {}", other.type_str());
                return Err(self.error(key, cause));
            }
        };
        parse(&text).map_err(|cause| self.error(key, cause))
    }

    /// True or false.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, ConfigError> {
        match self.value(key) {
            None => Ok(default),
            Some(Value::Boolean(flag)) => Ok(*flag),
            Some(other) => {
                let cause = format!("must be true or false, not {}", other.type_str());
                Err(self.error(key, cause))
            }
        }
    }

    /// True or false, or what a text stands for; false where it is not set.
    pub(super) fn flag_or<T: From<bool>>(
        &self,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        match self.value(key) {
            Some(Value::String(_)) => self.parsed(key, parse),
            _ => self.flag(key, false).map(T::from),
        }
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
        // What is missing in a list is missing in the file that has the list.
        let of_section = || {
            let values = self.layers.values.iter();
            let mut own = values.filter(|((name, ..), _)| self.is_listed && name == self.name);
            own.next().map(|(_, (_, file))| file)
        };
        let set = self.layers.values.get(&self.place(key));
        let file = set.map(|(_, file)| file).or_else(of_section);
        let file = file.unwrap_or(&self.layers.main).display();
        let name = self.name;
        ConfigError(match self.is_listed {
            true => format!("{file}: [[{name}]] {}, {key} {cause}", self.number + 1),
            false => format!("{file}: [{name}] {key} {cause}"),
        })
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
        let value = self.layers.values.get(&self.place(key));
        value.map(|(value, _)| value)
    }

    fn place(&self, key: &str) -> Place {
        (self.name.to_owned(), self.number, key.to_owned())
    }
}

/// The folder of the device's own layers, beside the main file.
pub(crate) fn layers_beside(main: &Path) -> PathBuf {
    let mut folder = main.as_os_str().to_owned();
    folder.push(".d");
    folder.into()
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

fn no_section(file: &Path, section: &str) -> ConfigError {
    ConfigError(format!("{}: {section} must be a section", file.display()))
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
