//! The variables in Litestream's configuration, expanded as Litestream does it: in the whole text,
//! before it is YAML.
//!
//! Owns the rules (those of Go's `os.Expand`) and the names of what is missing. Never looks at this
//! process's environment by itself.

use std::collections::BTreeMap;

use crate::credentials::delivery;

/// Around the number of a missing variable in the marked text: characters of Unicode's private use,
/// which mean nothing to YAML.
const MARK: [char; 2] = ['\u{e000}', '\u{e001}'];

/// The environment that Litestream will get, as far as it is known.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Variables {
    known: BTreeMap<String, String>,
    /// Another one, systemd, adds to it.
    are_open: bool,
}

impl Variables {
    /// What a Litestream gets that asks for credentials: beside what edgerepl gives it, edgerepl's own
    /// environment; or, where it is a unit of systemd's, what nobody here can see.
    pub fn of_litestream(thing_name: &str, region: &str, is_unit: bool) -> Self {
        let given = delivery::to_ask(thing_name, region, delivery::NOTHING)
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_string()));
        if is_unit {
            let emptied = delivery::EMPTIED.map(|name| (name.to_owned(), String::new()));
            return Self::open(emptied.into_iter().chain(given));
        }
        Self::closed(delivery::inherited().chain(given))
    }

    /// The same for a Litestream that finds its credentials in its environment.
    #[must_use]
    pub fn with_credentials(mut self) -> Self {
        for name in delivery::CREDENTIALS {
            self.known.insert(name.to_owned(), "provided".to_owned());
        }
        self
    }

    /// All that there will be.
    pub fn closed(known: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            known: known.into_iter().collect(),
            are_open: false,
        }
    }

    /// Those that are certain; the unit of Litestream's may have more.
    pub fn open(known: impl IntoIterator<Item = (String, String)>) -> Self {
        Self {
            are_open: true,
            ..Self::closed(known)
        }
    }

    /// Whether there may be more.
    pub fn are_open(&self) -> bool {
        self.are_open
    }
}

/// A text with its variables expanded.
#[derive(Debug, Default)]
pub(super) struct Expanded {
    /// What Litestream reads. A variable that may be set by others has its mark here, too.
    pub(super) text: String,
    /// The same, with a mark for each variable that is empty or not known.
    pub(super) marked: String,
    missing: Vec<String>,
}

impl Expanded {
    /// Taken as it is.
    pub(super) fn literally(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            marked: text.to_owned(),
            missing: Vec::new(),
        }
    }

    /// With `variables`; none where it gets longer than `longest` bytes.
    pub(super) fn of(text: &str, variables: &Variables, longest: usize) -> Option<Self> {
        let mut expanded = Self::default();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, length) = name(after);
            match name {
                "" if length == 0 => expanded.push("$"),
                "" => {}
                "PID" => expanded.push("1"),
                name => expanded.variable(name, variables),
            }
            rest = &after[length..];
            if expanded.text.len().max(expanded.marked.len()) > longest {
                return None;
            }
        }
        expanded.push(rest);
        Some(expanded)
    }

    /// The variables that `value`, a part of the marked text, lacks.
    pub(super) fn missing_in<'a>(&'a self, value: &'a str) -> impl Iterator<Item = &'a str> {
        let numbers = value.split(MARK[0]).skip(1);
        numbers.filter_map(|part| {
            let number: usize = part.split(MARK[1]).next()?.parse().ok()?;
            self.missing.get(number).map(String::as_str)
        })
    }

    /// `value` for people: variables that are not known by their names.
    pub(super) fn shown(&self, value: &str) -> String {
        let mut shown = value.to_owned();
        for (number, name) in self.missing.iter().enumerate() {
            shown = shown.replace(&mark(number), &format!("${{{name}}}"));
        }
        shown
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.marked.push_str(text);
    }

    fn variable(&mut self, name: &str, variables: &Variables) {
        let known = variables.known.get(name);
        if let Some(value) = known.filter(|value| !value.is_empty()) {
            return self.push(value);
        }
        let position = self.missing.iter().position(|missing| missing == name);
        let number = position.unwrap_or_else(|| {
            self.missing.push(name.to_owned());
            self.missing.len() - 1
        });
        self.marked.push_str(&mark(number));
        if known.is_none() && variables.are_open {
            self.text.push_str(&mark(number));
        }
    }
}

/// Whether something in `value` is not known.
pub(super) fn is_unknown(value: &str) -> bool {
    value.contains(MARK[0])
}

fn mark(number: usize) -> String {
    format!("{}{number}{}", MARK[0], MARK[1])
}

/// The variable's name at the beginning of `text`, which follows a `$`, and how much of it that takes.
fn name(text: &str) -> (&str, usize) {
    let is_special = |c: char| "*#$@!?-0123456789".contains(c);
    if let Some(braced) = text.strip_prefix('{') {
        return match braced.find('}') {
            Some(end) => (&braced[..end], end + 2),
            None => ("", 1),
        };
    }
    if text.starts_with(is_special) {
        return (&text[..1], 1);
    }
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let end = text.find(|c| !is_in_name(c)).unwrap_or(text.len());
    (&text[..end], end)
}
