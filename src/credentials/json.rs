//! JSON from a server or from a child, read strictly.
//!
//! Owns the rules for both. Never quotes what it reads.

use serde_json::{Map, Value};

use super::Document;

/// Parses JSON, and refuses a member that stands twice: readers differ in which one they take.
pub(super) fn parse_strictly(text: &[u8]) -> Result<Document, String> {
    let value: Value = serde_json::from_slice(text)
        .map_err(|e| format!("it is not JSON (line {}, column {})", e.line(), e.column()))?;
    let value = Document::from(value);
    // Each member has exactly one colon outside of strings.
    let mut written = 0;
    let (mut in_string, mut escaped) = (false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b':' if !in_string => written += 1,
            _ => (),
        }
    }
    match written == members(&value) {
        true => Ok(value),
        false => Err("it gives a member twice".to_owned()),
    }
}

fn members(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.len() + map.values().map(members).sum::<usize>(),
        Value::Array(items) => items.iter().map(members).sum(),
        _ => 0,
    }
}

/// A member that must be text.
pub(super) fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    object
        .get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("it has no text {name:?}"))
}
