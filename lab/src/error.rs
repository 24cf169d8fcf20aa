//! What went wrong in the lab, as one sentence that names the thing and the cause. It is for
//! people: nothing in the lab or its users matches on it.

use std::fmt;

use edgerepl_tools::Missing;

/// One sentence: the thing, the cause and, where there is one, the next step.
pub struct Error(String);

/// What the lab's fallible functions return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// For `map_err`: says what was being done when `cause` happened.
    pub(crate) fn doing<C: fmt::Display>(thing: impl fmt::Display) -> impl FnOnce(C) -> Self {
        move |cause| Self(format!("{thing}: {cause}"))
    }
}

impl From<Missing> for Error {
    fn from(missing: Missing) -> Self {
        Self(missing.to_string())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The sentence itself: a test that returns the error prints it so.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
