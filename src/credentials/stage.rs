//! The stages of a fetch, each named for what the fetch waits for.
//!
//! Owns their names: the last stage that a fetch reported shows where it hangs.

use std::sync::Arc;

/// What the child is about to wait for: of a child that hangs, the last one says what hung it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Stage {
    /// The PKCS#11 module, the token, the lookup of the key; or the key's file.
    Key,
    /// The name's resolution, TCP, TLS, HTTP.
    Network,
    /// A signature by the key, during the handshake.
    Signature,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Key, Self::Network, Self::Signature];

    /// The word for it in JSON and in messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Network => "network",
            Self::Signature => "signature",
        }
    }
}

/// Called at the beginning of each stage, from the thread that signs.
pub type OnStage = Arc<dyn Fn(Stage) + Send + Sync>;
