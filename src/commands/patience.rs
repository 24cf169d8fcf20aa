//! A time limit for work that may hang, such as a call into a PKCS#11 module.
//!
//! Owns the limit. Never stops the work itself: a thread that hangs is left behind, and ends with
//! the process. That is enough for a command; the daemon has a child for such work.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::credentials::stage::{OnStage, Stage};
use crate::credentials::{FailureClass, FetchFailure};

/// The limit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Does `work` within [`PATIENCE`].
///
/// # Errors
/// The error of `work`; `Key`, with the stage, if it hangs.
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
        // The receiver has gone once the limit has passed.
        let _ = sender.send(work(&on_stage));
    });
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let stage = *stage.lock().unwrap_or_else(PoisonError::into_inner);
        let message = format!(
            "no answer within {} s in the stage \"{}\"",
            PATIENCE.as_secs(),
            stage.name()
        );
        Err(FetchFailure::new(FailureClass::Key, message))
    })
}
