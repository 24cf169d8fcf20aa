//! Temporary AWS credentials: what they are, how they are fetched, how they are handed over.
//!
//! Owns the types that the rest of the program passes around. Never logs a secret: the `Debug` of a
//! type with a secret shows only that there is one.
//!
//! A child fetches (`fetch`), with a handle of the key (`key`), over a connection that is always
//! verified (`tls`), from an endpoint whose answers are checked before use (`answer`). The resident
//! process gets the checked answer and hands it to Litestream (`delivery`).

mod answer;
pub mod certificate;
mod connect;
pub mod delivery;
mod document;
pub mod fetch;
mod file;
mod https;
mod json;
pub mod key;
mod markers;
pub mod stage;
pub mod tls;
pub mod wire;
pub mod witness;

use std::fmt;
use std::time::Duration;

use zeroize::Zeroize;

use crate::clock::WallTime;

pub(crate) use document::Document;

/// The longest wait that is believed, whoever asks for it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// One set of temporary credentials, as AWS STS grants them; wiped when it is dropped.
#[derive(Clone, Eq, PartialEq)]
pub struct Credentials {
    /// Names the session; not a secret, but of no use to a reader either.
    pub access_key_id: String,
    /// Signs requests. Secret.
    pub secret_access_key: String,
    /// Goes with each request. Secret.
    pub session_token: String,
}

impl Drop for Credentials {
    fn drop(&mut self) {
        self.access_key_id.zeroize();
        self.secret_access_key.zeroize();
        self.session_token.zeroize();
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(secret)")
    }
}

/// Credentials and what the provider said of them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Grant {
    /// What Litestream gets.
    pub credentials: Credentials,
    /// When they end, by the provider's clock.
    pub expiration: WallTime,
    /// How long they were good for when they were granted: `expiration` less the answer's `Date`,
    /// so that the device's own clock has no say.
    pub lifetime: Duration,
    /// The provider's clock when it answered, which may be wrong: nothing that outlives the grant
    /// may depend on it. `None` where the answer carried no date.
    pub server_time: Option<WallTime>,
    /// The thing that they were granted to: from the configuration, else from the certificate.
    pub thing_name: String,
}

/// Why a fetch gave nothing, in one sentence, and what may be done about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchFailure {
    /// Decides what happens next.
    pub class: FailureClass,
    /// Names the thing, the cause and, where there is one, the operator's next step.
    pub message: String,
    /// The least wait that the server asked for, [`LONGEST_WAIT`] at the most.
    pub retry_after: Option<Duration>,
}

impl FetchFailure {
    /// A failure after which the server asked for no particular wait.
    pub(crate) fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
        }
    }
}

/// What a failed fetch calls for: named by what the caller can do.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum FailureClass {
    /// The network, the server or its answer: try again soon.
    Transient,
    /// The key or the token that holds it: try again soon, with everything opened anew.
    Key,
    /// The server understood and refused (400, 403, 404), or a file is wrong: somebody has to
    /// change something, here or at AWS. Try again, slowly.
    Refused,
    /// The server's certificate is not valid yet: the device's clock is not set. Try again often;
    /// it is nobody's failure.
    ClockNotSet,
    /// The token refused the PIN, which is not offered again, since that would lock it. Ask again
    /// now and then: somebody may put the right one into its file.
    WrongPin,
}

impl FailureClass {
    /// All of them, in the order of their names in JSON.
    pub const ALL: [Self; 5] = [
        Self::Transient,
        Self::Key,
        Self::Refused,
        Self::ClockNotSet,
        Self::WrongPin,
    ];

    /// The word for it in JSON and in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transient => "transient",
            Self::Key => "key",
            Self::Refused => "refused",
            Self::ClockNotSet => "clock_not_set",
            Self::WrongPin => "wrong_pin",
        }
    }
}
