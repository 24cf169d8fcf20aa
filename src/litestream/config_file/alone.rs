//! The configuration of one database of a folder.
//!
//! Owns where Litestream has the replica of such a database. `litestream restore` knows only
//! databases that its configuration names by path, and says that all others are not in it. Never
//! puts a credential into what it makes.

use std::fmt::Write;
use std::path::Path;

use super::document::Node;
use super::{Configuration, STATIC_KEYS, absolute, clean, is_inside, is_unknown, replica_of};

impl Configuration {
    /// A configuration that names `database` and no other, where this one names others, too. Nothing in it
    /// is to be expanded.
    ///
    /// # Errors
    /// One sentence where its replica is in a place that only the environment tells.
    pub fn only(&self, database: &Path) -> Result<Option<String>, String> {
        if let Some(text) = self.alone(database)? {
            return Ok(Some(text));
        }
        let entries: Vec<&Node> = super::databases(&self.root).map(|(_, node)| node).collect();
        let wanted = absolute(&database.to_string_lossy());
        let mut named = entries.iter().filter(|entry| {
            let path = entry.text("path");
            path.is_some_and(|path| absolute(path) == wanted)
        });
        match named.next() {
            Some(entry) if entries.len() > 1 => {
                self.printed_with((*entry).clone(), database).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A configuration that names `database` by its path, where this one names only its folder.
    /// Nothing in it is to be expanded.
    ///
    /// # Errors
    /// One sentence where its replica is in a place that only the environment tells.
    pub fn alone(&self, database: &Path) -> Result<Option<String>, String> {
        let Some(inside) = self.inside_folder(database) else {
            return Ok(None);
        };
        let folders = super::databases(&self.root).map(|(_, node)| node);
        let Some(replica) = folders
            .filter(|node| is_inside(node, database).is_some())
            .find_map(replica_of)
        else {
            return Ok(None);
        };
        let inside = inside.to_string_lossy();
        let replica = match replica.text("url") {
            Some(url) => replica.with("url", Node::of_text(&below(url, &inside))),
            None => {
                let path = Path::new(replica.text("path").unwrap_or_default()).join(&*inside);
                let path = clean(&path).to_string_lossy().into_owned();
                replica.with("path", Node::of_text(&path))
            }
        };
        let entry = Node::of_text("").with("replica", replica);
        let entry = entry.with("path", Node::of_text(&database.to_string_lossy()));
        self.printed_with(entry, database).map(Some)
    }

    /// The text of this configuration with one entry for all databases.
    fn printed_with(&self, entry: Node, database: &Path) -> Result<String, String> {
        let text = self
            .root
            .with("dbs", Node::of_one(entry))
            .print(&STATIC_KEYS);
        match is_unknown(&text) {
            false => Ok(text),
            true => Err(format!(
                "where the replica of {} is depends on what only Litestream's unit can set; name \
                 the database by path in {}",
                database.display(),
                self.path.display()
            )),
        }
    }
}

/// The URL of what is `inside` the one of a folder, escaped as Litestream has it: it takes the path
/// of some URLs with the escapes.
fn below(url: &str, inside: &str) -> String {
    let (place, rest) = url.split_at(url.find(['?', '#']).unwrap_or(url.len()));
    let begin = place.find("://").map_or(0, |at| at + "://".len());
    let path = place[begin..]
        .find('/')
        .map_or(place.len(), |at| begin + at);
    let (host, path) = place.split_at(path);
    let whole = format!("/{}/{inside}", unescaped(path));
    let mut below = host.to_owned();
    for byte in clean(Path::new(&whole)).to_string_lossy().bytes() {
        match byte {
            byte if byte.is_ascii_alphanumeric() => below.push(char::from(byte)),
            byte if b"-_.~$&+,/:;=@".contains(&byte) => below.push(char::from(byte)),
            byte => {
                let _ = write!(below, "%{byte:02X}");
            }
        }
    }
    below + rest
}

/// A URL's path without escapes.
fn unescaped(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let escaped = behind.get(..2).filter(|_| first == b'%');
        let code = escaped.and_then(|code| std::str::from_utf8(code).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
