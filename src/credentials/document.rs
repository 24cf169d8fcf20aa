//! JSON with secrets in it.
//!
//! Owns its strings and its written form, and wipes both when it is dropped. The resident process
//! lives for years: a secret must never stay in freed memory, where an attacker could read it.

use std::io::Write;
use std::ops::Deref;

use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

/// More than a document with credentials takes: a buffer that grows leaves a copy behind.
const ROOM: usize = 32 * 1024;

/// A value that is wiped when it is dropped.
#[derive(Debug)]
pub(crate) struct Document(Value);

impl Document {
    /// The document as one line, without the line's end.
    pub(crate) fn text(&self) -> Zeroizing<Vec<u8>> {
        let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
        // Memory takes all that is written to it.
        let _ = write!(text, "{}", self.0);
        text
    }
}

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

impl Deref for Document {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}

impl Drop for Document {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(members) => members.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
