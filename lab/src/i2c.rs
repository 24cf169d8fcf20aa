//! A bus with a chip on it, for processes that believe it to be `/dev/i2c-N`.
//!
//! Owns the socket that the preloaded shim (`lab/i2c-shim`) talks to: each message is one transfer,
//! each answer says how it went. However many processes use the bus, there is one chip.
//!
//! A message is `0 ADDRESS` (what the next transfers go to), `1 BYTES…` (a write) or `2 COUNT` (a
//! read); the answer is `0`, with the bytes of a read, or the number of the error.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, Backlog, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, accept, bind,
        listen, recv, send, shutdown, socket,
    },
};

use crate::{
    chip::{Chip, ChipCounts, ChipFaults},
    error::{Error, Result},
    sync::Shared,
};

/// The variable that tells the shim where the bus is.
const BUS: &str = "EDGEREPL_LAB_I2C";

/// A bus, as long as it is not dropped.
pub struct I2cBus {
    chip: Arc<Shared<Chip>>,
    path: PathBuf,
    listener: Arc<OwnedFd>,
}

impl I2cBus {
    /// Serves `chip` at the socket `path`.
    pub(crate) fn start(chip: Chip, path: &Path) -> Result<Self> {
        let failed = |e: Errno| Error::doing::<io::Error>(path.display())(e.into());
        let kind = (
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
        );
        let listener = socket(kind.0, kind.1, kind.2, None).map_err(failed)?;
        let address = UnixAddr::new(path).map_err(failed)?;
        bind(listener.as_raw_fd(), &address).map_err(failed)?;
        listen(&listener, Backlog::MAXALLOWABLE).map_err(failed)?;
        let (chip, listener) = (Arc::new(Shared::new(chip)), Arc::new(listener));
        let (served, door) = (Arc::clone(&chip), Arc::clone(&listener));
        thread::spawn(move || {
            while let Ok(client) = accept(door.as_raw_fd()) {
                let chip = Arc::clone(&served);
                thread::spawn(move || serve(client, &chip));
            }
        });
        Ok(Self {
            chip,
            path: path.to_owned(),
            listener,
        })
    }

    /// What a process needs in its environment to find this bus at `/dev/i2c-N`, where N is any.
    pub fn env(&self) -> (String, String) {
        (BUS.to_owned(), self.path.display().to_string())
    }

    /// The chip, for another way to it.
    pub(crate) fn chip(&self) -> Arc<Shared<Chip>> {
        Arc::clone(&self.chip)
    }

    /// Orders what goes wrong from now on.
    pub fn order(&self, faults: ChipFaults) {
        self.chip.lock().faults = faults;
    }

    /// What the chip was asked to do until now.
    pub fn counts(&self) -> ChipCounts {
        self.chip.lock().counts
    }
}

impl Drop for I2cBus {
    fn drop(&mut self) {
        // Wakes the thread that accepts.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One process that has the device open.
fn serve(client: i32, chip: &Shared<Chip>) {
    let mut message = [0; 512];
    let mut address = 0;
    loop {
        let length = match recv(client, &mut message, MsgFlags::empty()) {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        let mut buffer = [0; 256];
        let answer: Vec<u8> = match &message[..length] {
            [0, new] => {
                address = *new;
                vec![0]
            }
            [1, bytes @ ..] => match chip.lock().write(address, bytes) {
                Ok(()) => vec![0],
                Err(_) => vec![NO_ANSWER],
            },
            [2, count] => {
                let buffer = &mut buffer[..usize::from(*count)];
                match chip.lock().read(address, buffer) {
                    Ok(()) => [&[0], &*buffer].concat(),
                    Err(_) => vec![NO_ANSWER],
                }
            }
            _ => vec![Errno::EINVAL as u8],
        };
        if send(client, &answer, MsgFlags::MSG_NOSIGNAL).is_err() {
            break;
        }
    }
    let _ = nix::unistd::close(client);
}

/// What Linux's drivers say to a transfer that nobody acknowledged.
const NO_ANSWER: u8 = Errno::EREMOTEIO as u8;
