//! The pattern of a folder's files, as Litestream matches it: by Go's `filepath.Match`, against a
//! file's name.
//!
//! Owns the rules. Never looks at a file.

use std::iter::Peekable;
use std::str::{Chars, FromStr};

/// A pattern that is well formed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Pattern(Vec<Term>);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Term {
    /// `*`: whatever comes.
    Any,
    /// `?`: one character.
    One,
    /// `[a-z]` or `[^a-z]`: one of these characters, or one of all others.
    Class {
        is_negated: bool,
        ranges: Vec<(char, char)>,
    },
    Literal(char),
}

/// Litestream refuses the whole configuration then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Malformed;

impl FromStr for Pattern {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut terms = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(first) = rest.next() {
            terms.push(match first {
                '*' => Term::Any,
                '?' => Term::One,
                '[' => class(&mut rest)?,
                '\\' => Term::Literal(rest.next().ok_or(Malformed)?),
                other => Term::Literal(other),
            });
        }
        Ok(Self(terms))
    }
}

impl Pattern {
    /// Whether a file of this name matches.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let (mut term, mut at) = (0, 0);
        // Behind the last `*`: where to go on once more, with one character more for it.
        let mut again = None;
        loop {
            let here = match self.0.get(term) {
                Some(Term::Any) => {
                    again = Some((term + 1, at));
                    term += 1;
                    continue;
                }
                Some(one) => name.get(at).is_some_and(|c| one.takes(*c)),
                None if at == name.len() => return true,
                None => false,
            };
            if here {
                (term, at) = (term + 1, at + 1);
                continue;
            }
            match again {
                Some((behind, from)) if from < name.len() => {
                    again = Some((behind, from + 1));
                    (term, at) = (behind, from + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Term {
    /// Whether this, which is no `*`, stands for `c`.
    fn takes(&self, c: char) -> bool {
        match self {
            Self::Any | Self::One => true,
            Self::Literal(literal) => *literal == c,
            Self::Class { is_negated, ranges } => {
                let is_in = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                is_in != *is_negated
            }
        }
    }
}

/// What follows a `[`.
fn class(rest: &mut Peekable<Chars<'_>>) -> Result<Term, Malformed> {
    let is_negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
        let from = bound(rest)?;
        let to = match rest.next_if_eq(&'-') {
            Some(_) => bound(rest)?,
            None => from,
        };
        ranges.push((from, to));
    }
    Ok(Term::Class { is_negated, ranges })
}

/// A character of a class, which something has to follow.
fn bound(rest: &mut Peekable<Chars<'_>>) -> Result<char, Malformed> {
    let bound = match rest.next().ok_or(Malformed)? {
        '-' | ']' => return Err(Malformed),
        '\\' => rest.next().ok_or(Malformed)?,
        other => other,
    };
    rest.peek().map(|_| bound).ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table of Go's own tests, without what is about separators.
    #[test]
    fn matches_as_go_does() {
        for (pattern, name, matches) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("a[^a][^a][^a]b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[x\\-]", "-", true),
            ("[x\\-]", "z", false),
            ("[\\-x]", "x", true),
            ("[\\-x]", "-", true),
            ("[\\-x]", "a", false),
            ("*x", "xxx", true),
            ("", "", true),
            ("", "a", false),
            ("**", "", true),
            ("*.db", "app.db", true),
            ("*.db", ".db", true),
            ("*.db", "app.db-wal", false),
            ("*.DB", "app.db", false),
        ] {
            let parsed: Pattern = pattern.parse().expect(pattern);
            assert_eq!(parsed.matches(name), matches, "{pattern} {name}");
        }
        for malformed in [
            "[]a]", "[-]", "[x-]", "[-x]", "\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a[b", "[a-",
        ] {
            assert_eq!(malformed.parse::<Pattern>(), Err(Malformed), "{malformed}");
        }
    }
}
