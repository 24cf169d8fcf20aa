//! The fetch: what the short-lived child is asked and what it answers on its pipe.

use crate::clock::WallTime;
use crate::config::{Identity, Provider};

/// What the child is told on its standard input. Holds no secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FetchRequest {
    /// Who asks.
    pub identity: Identity,
    /// Who is asked.
    pub provider: Provider,
    /// Certificates are judged at the system's clock, but at no time before this.
    pub not_before: WallTime,
}
