//! What may hang, done by a process that has to answer somebody.
//!
//! Owns the limit. What hangs is left behind on its thread, and ends with the process: good enough
//! for a command that a person waits for; the daemon has a child for it.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::credentials::stage::{OnStage, Stage};
use crate::credentials::{FailureClass, FetchFailure};

/// What may hang is given up on after this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Does `work`, for [`PATIENCE`] at the most.
///
/// # Errors
/// What `work` says; `Key`, with the stage, where it hangs.
pub(crate) fn patiently<T: Send + 'static>(
    work: impl FnOnce(&OnStage) -> Result<T, FetchFailure> + Send + 'static,
) -> Result<T, FetchFailure> {
    let stage = Arc::new(Mutex::new(Stage::Key));
    let (sender, receiver) = mpsc::channel();
    let told = Arc::clone(&stage);
    thread::spawn(move || {
        let on_stage: OnStage = Arc::new(move |stage| {
            *told.lock().unwrap_or_else(PoisonError::into_inner) = stage;
        });
        // Nobody listens any more once patience has ended.
        let _ = sender.send(work(&on_stage));
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let stage = *stage.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!("it hangs in the stage \"{}\"", stage.name());
        Err(FetchFailure::new(FailureClass::Key, message))
    })
}
