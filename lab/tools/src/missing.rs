//! A program that is not there. It is for people: nothing matches on it.

use std::fmt;

/// One sentence: the program, the cause and the next step.
#[derive(Clone)]
pub struct Missing(String);

/// What a place is given as.
pub type Result<T> = std::result::Result<T, Missing>;

impl Missing {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sentence itself: a test that returns the error prints it so.
impl fmt::Debug for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}
