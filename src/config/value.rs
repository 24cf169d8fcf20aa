//! The formats of single values: durations, sizes, names, paths.
//!
//! Owns the parsers. Each reads a string, and returns the value or the end of a sentence that
//! begins with the key's name. The limits come from AWS, systemd and SQLite; those of durations and
//! sizes are [`Bounds`], which the manual lists. Never reads a file or the environment.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::private_key::PrivateKey;
use super::{Endpoint, Metered, THING_NAME};

/// The longest path of a socket, in bytes (unix(7)).
pub(super) const LONGEST_SOCKET: usize = 107;

/// `"500ms"`, `"5s"`, `"5m"`, `"12h"`, `"30d"`: one number, one unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || {
        format!(
            "must be a number with ms, s, m, h or d, such as \"5m\", not {}",
            shown(text)
        )
    };
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let seconds = match unit {
        "ms" => return Ok(Duration::from_millis(number)),
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    Ok(Duration::from_secs(number.saturating_mul(seconds)))
}

/// `"65536"`, `"512KiB"`, `"64MiB"`, `"1GiB"`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "must be a number with KiB, MiB or GiB, such as \"64MiB\", not {}",
            shown(text)
        )
    };
    let (number, unit) = number_and_unit(text).ok_or_else(wrong)?;
    let bytes: u64 = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    Ok(number.saturating_mul(bytes))
}

/// The least and the most of a duration or a size, as an operator writes them.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The key's section.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The least.
    pub least: &'static str,
    /// The most.
    pub most: &'static str,
}

impl Bounds {
    /// Parses `text`, and checks these bounds.
    pub(super) fn around<T: PartialOrd>(
        &self,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> impl FnOnce(&str) -> Result<T, String> {
        move |text| {
            let value = parse(text)?;
            if parse(self.least)? <= value && value <= parse(self.most)? {
                return Ok(value);
            }
            let Self { least, most, .. } = self;
            Err(format!(
                "must be from {least} to {most}, not {}",
                shown(text)
            ))
        }
    }
}

/// What `parse` reads, or the word `"off"`.
pub(super) fn or_off<T>(
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> impl FnOnce(&str) -> Result<Option<T>, String> {
    |text| match text {
        "off" => Ok(None),
        _ => parse(text)
            .map(Some)
            .map_err(|cause| format!("{cause} (or \"off\")")),
    }
}

/// An AWS IoT thing name: `[a-zA-Z0-9:_-]{1,128}`.
pub(super) fn thing_name(text: &str) -> Result<String, String> {
    if is_thing_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be 1 to 128 letters, digits, \":\", \"_\" or \"-\", not {}",
        shown(text)
    ))
}

/// Whether AWS IoT accepts the name of a thing: `[a-zA-Z0-9:_-]{1,128}`.
pub(crate) fn is_thing_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":_-".contains(&b);
    (1..=128).contains(&name.len()) && name.bytes().all(allowed)
}

/// An AWS IoT role alias: `[\w=,@-]{1,128}`.
pub(super) fn role_alias(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_=,@-".contains(&b);
    name(text, 128, allowed).ok_or_else(|| {
        format!(
            "must be the role alias's name (1 to 128 of A-Z a-z 0-9 _ = , @ -), not {}",
            shown(text)
        )
    })
}

/// The name of an AWS region, such as `ap-northeast-1`.
pub(super) fn region(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    name(text, 64, allowed).ok_or_else(|| {
        format!(
            "must be a region such as \"ap-northeast-1\", not {}",
            shown(text)
        )
    })
}

/// The name of an S3 bucket: 3 to 63 of `a-z 0-9 . -`, with a letter or a digit at both ends.
pub(super) fn bucket(text: &str) -> Result<String, String> {
    let is_inner = |b: u8| is_outer(b) || b == b'.' || b == b'-';
    let ends = [text.bytes().next(), text.bytes().last()];
    name(text, 63, is_inner)
        .filter(|name| name.len() >= 3 && ends.into_iter().flatten().all(is_outer))
        .ok_or_else(|| {
            format!(
                "must be a bucket's name (3 to 63 of a-z 0-9 . -), not {}",
                shown(text)
            )
        })
}

const fn is_outer(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

/// What the keys of objects begin with: words of `A-Z a-z 0-9 _ . = -` between slashes, any of which may hold
/// the place of the thing's name.
pub(super) fn prefix(text: &str) -> Result<String, String> {
    let is_word = |word: &str| {
        let plain = word.replace(THING_NAME, "x");
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.=-".contains(&b);
        name(&plain, 512, allowed).is_some_and(|plain| plain != "." && plain != "..")
    };
    if text.split('/').all(is_word) && text.len() <= 512 {
        return Ok(text.to_owned());
    }
    Err(format!(
        "must be words of A-Z a-z 0-9 _ . = - or {THING_NAME} between slashes, not {}",
        shown(text)
    ))
}

/// The URL of an S3-compatible store. Only to this machine itself may it be without TLS.
pub(super) fn store(text: &str) -> Result<String, String> {
    let (is_plain, authority) = match (text.strip_prefix("http://"), text.strip_prefix("https://"))
    {
        (Some(rest), _) => (true, rest),
        (_, Some(rest)) => (false, rest),
        _ => return Err(format!("must begin with \"https://\", not {}", shown(text))),
    };
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    let endpoint: Endpoint = authority.parse()?;
    let host = endpoint.host.trim_start_matches('[').trim_end_matches(']');
    let is_local = host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if is_plain && !is_local {
        return Err("must be reached by https, not http".to_owned());
    }
    let scheme = if is_plain { "http" } else { "https" };
    Ok(format!("{scheme}://{authority}"))
}

/// The name of a systemd unit.
pub(super) fn unit(text: &str) -> Result<String, String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b);
    name(text, 255, allowed)
        .filter(|n| n.contains('.') && !n.starts_with('-'))
        .ok_or_else(|| {
            format!(
                "must be a unit such as \"litestream.service\", not {}",
                shown(text)
            )
        })
}

/// An absolute path: the daemon's working directory has no meaning.
pub(super) fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if !is_absolute(text) {
        return Err(format!(
            "must be a path that begins with \"/\", not {}",
            shown(text)
        ));
    }
    Ok(PathBuf::from(text))
}

/// When the line is metered, beside true and false.
pub(super) fn metered(text: &str) -> Result<Metered, String> {
    match text {
        "auto" => Ok(Metered::OnMobileLink),
        path if is_absolute(path) => Ok(Metered::While(PathBuf::from(path))),
        other => Err(format!(
            "must be true, false, \"auto\" or the path of a file, not {}",
            shown(other)
        )),
    }
}

/// The path of a socket.
pub(super) fn socket_path(text: &str) -> Result<PathBuf, String> {
    match text.len() {
        length if length > LONGEST_SOCKET => Err(format!(
            "must be a path of at most {LONGEST_SOCKET} bytes, the kernel's limit for a socket, \
             not of {length}"
        )),
        _ => absolute_path(text),
    }
}

/// A PKCS#11 URI or the absolute path of a PEM file. Any other text may be the key itself or a
/// PIN: an error names its kind, and never quotes it.
pub(super) fn private_key(text: &str) -> Result<PrivateKey, String> {
    if !PrivateKey::is_uri(text) && !is_absolute(text) {
        return Err(format!(
            "must be a path that begins with \"/\", or a PKCS#11 URI, not {}",
            kind(text)
        ));
    }
    text.parse::<PrivateKey>()
        .map_err(|cause| cause.to_string())
}

/// One line, and no PEM block: the second line of one may begin with a slash.
fn is_absolute(text: &str) -> bool {
    text.starts_with('/') && !text.contains("-----") && !text.contains(char::is_control)
}

/// The kind of a text that is neither a path nor a URI.
fn kind(text: &str) -> &'static str {
    let begin = text.trim_start().to_ascii_lowercase();
    match () {
        () if begin.is_empty() => "an empty text",
        () if text.contains("-----") => "a PEM block: put it into a file, and name that",
        () if begin.starts_with("pkcs11") => "a URI that does not begin with \"pkcs11:\"",
        () if text.contains(char::is_control) => "a text of several lines",
        () => "a text of another kind",
    }
}

/// A value for a message: in quotes, unless it looks like a value of `private_key`.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let lower = text.to_ascii_lowercase();
    let secret = ["-----", "pkcs11", "pin-", "\n"]
        .iter()
        .any(|word| lower.contains(word));
    // The body of a PEM block, or a part of it.
    let base64 = |c: char| c.is_ascii_alphanumeric() || "+=".contains(c);
    let dense = text.split(|c| !base64(c)).any(|run| run.len() >= 32);
    if secret || dense || text.len() > LONGEST {
        return "what was given, which may be a secret".to_owned();
    }
    format!("{text:?}")
}

fn name(text: &str, longest: usize, allowed: impl Fn(u8) -> bool) -> Option<String> {
    let fits = (1..=longest).contains(&text.len()) && text.bytes().all(allowed);
    fits.then(|| text.to_owned())
}

/// A number that is too large for its type becomes the largest one, which no bound allows.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (digits > 0).then(|| (number.parse().unwrap_or(u64::MAX), unit))
}

/// A table's name that needs no quotes in SQL and is not one of SQLite's or Litestream's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TableName(String);

impl FromStr for TableName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
        let lower = text.to_ascii_lowercase();
        name(text, 64, allowed)
            .filter(|n| !n.starts_with(|c: char| c.is_ascii_digit()))
            .filter(|_| !lower.starts_with("sqlite_") && !lower.starts_with("_litestream"))
            .map(Self)
            .ok_or_else(|| {
                format!(
                    "must be a table's name of letters, digits and \"_\", not {}",
                    shown(text)
                )
            })
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_things_name_from_other_text() {
        assert!(is_thing_name("a:B_c-9"));
        for wrong in ["", "AWS IoT Certificate", "a/b", "ä", &"x".repeat(129)] {
            assert!(!is_thing_name(wrong), "{wrong:?}");
        }
    }
}
