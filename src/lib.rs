//! edgerepl keeps a device's SQLite database replicated to S3 with credentials that live for
//! minutes.
//!
//! ```text
//! config ──► agent  (pure: (event, now) ─► actions; no I/O, no clock, no randomness of its own)
//!              ▲ │
//!       events │ │ actions
//!              │ ▼
//!           reactor (one poll over signals, one timer, child exits, pipes, sockets)
//!              │ │ │
//!     ┌────────┘ │ └─────────┐
//! fetch, chores  store       notify, ipc
//! ```
//!
//! `agent` decides when; `reactor` is the only place that waits; `credentials`, `litestream` and
//! `store` know how. Whatever is slow or dangerous is a short-lived child with a deadline.

// They panic where nobody reads; `commands::output` does not.
#![warn(clippy::print_stderr, clippy::print_stdout)]

pub mod agent;
pub mod cli;
pub mod clock;
mod commands;
pub mod config;
pub mod credentials;
mod ipc;
pub mod litestream;
mod reactor;
pub mod store;
pub mod system;
