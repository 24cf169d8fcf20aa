//! Tables of the kernel's, asked for over netlink (RFC 3549).
//!
//! Owns one question and the messages of its answer, in pieces. Never knows what is in a message: who asks
//! does. Never waits: the kernel has put the answer there when the question was sent.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `NLM_F_REQUEST | NLM_F_DUMP`; `NLMSG_ERROR`, `NLMSG_DONE`.
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// The length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// An answer is read in pieces of at most so many bytes, and no longer one is read: a device has some hundred
/// sockets and routes.
const PIECE: usize = 32 * 1024;
const MOST_PIECES: usize = 256;

/// What is asked for: the question's kind, and that of each message of the answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) protocol: SockProtocol,
    pub(super) question: u16,
    pub(super) answer: u16,
}

impl Table {
    /// All of it that `take` understands; `body` is the question's.
    ///
    /// # Errors
    /// What the kernel says; it may have no such table, and the sandbox no netlink.
    pub(super) fn dump<T>(
        self,
        body: &[u8],
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, self.protocol)?;
        let question = self.question_of(body);
        send(netlink.as_raw_fd(), &question, MsgFlags::empty())?;
        let mut all = Vec::new();
        let mut piece = vec![0; PIECE];
        for _ in 0..MOST_PIECES {
            let length = recv(netlink.as_raw_fd(), &mut piece, MsgFlags::empty())?;
            if self.parse(&piece[..length], &take, &mut all)? {
                return Ok(all);
            }
        }
        Err(ErrorKind::FileTooLarge.into())
    }

    fn question_of(self, body: &[u8]) -> Vec<u8> {
        let length = HEADER + body.len();
        let mut question = Vec::with_capacity(length);
        question.extend(u32::try_from(length).unwrap_or(u32::MAX).to_ne_bytes());
        question.extend(self.question.to_ne_bytes());
        question.extend(DUMP.to_ne_bytes());
        // Number and sender.
        question.extend([0; 8]);
        question.extend(body);
        question
    }

    /// Takes in a piece of an answer; whether it was the last one.
    fn parse<T>(
        self,
        mut piece: &[u8],
        take: impl Fn(&[u8]) -> Option<T>,
        all: &mut Vec<T>,
    ) -> io::Result<bool> {
        while let Some(header) = piece.get(..HEADER) {
            let length = number(header, 0).unwrap_or_default() as usize;
            let kind = u16::from_ne_bytes([header[4], header[5]]);
            let Some(message) = piece.get(HEADER..length) else {
                return Err(ErrorKind::InvalidData.into());
            };
            match kind {
                DONE => return Ok(true),
                ERROR => {
                    let code = number(message, 0).unwrap_or_default() as i32;
                    return Err(io::Error::from_raw_os_error(code.saturating_neg()));
                }
                kind if kind == self.answer => all.extend(take(message)),
                _ => {}
            }
            piece = piece.get(aligned(length)..).unwrap_or_default();
        }
        Ok(false)
    }
}

/// The attributes of a message, each with its kind; those after one that can't be are left out.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let content = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]), content))
    })
}

/// The number of 32 bits there.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

pub(super) fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: Table = Table {
        protocol: SockProtocol::NetlinkRoute,
        question: 18,
        answer: 20,
    };

    #[test]
    fn what_the_kernel_never_says_is_refused() {
        let mut all = Vec::new();
        let mut parse = |piece: &[u8]| TABLE.parse(piece, |m| Some(m.len()), &mut all);
        let header = |length: u32, kind: u16| {
            let mut header = length.to_ne_bytes().to_vec();
            header.extend(kind.to_ne_bytes());
            header.resize(HEADER, 0);
            header
        };
        assert!(parse(&header(u32::MAX, 20)).is_err());
        assert!(parse(&header(0, 20)).is_err());
        assert!(parse(&header(16, ERROR)).is_err());
        assert!(!parse(&[1, 2, 3]).expect("a piece"));
        assert!(!parse(&header(16, 20)).expect("a piece"));
        assert!(!parse(&header(16, 21)).expect("another kind"));
        assert!(parse(&header(16, DONE)).expect("a piece"));
        assert_eq!(all, [0]);
    }

    #[test]
    fn attributes_end_where_one_can_not_be() {
        let all = |bytes: &[u8]| attributes(bytes).map(|(kind, _)| kind).collect::<Vec<_>>();
        let one = |length: u16, kind: u16| [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        assert_eq!(all(&[one(4, 1), one(4, 2)].concat()), [1, 2]);
        assert_eq!(all(&[one(5, 1), vec![7; 4], one(4, 2)].concat()), [1, 2]);
        assert!(all(&[one(0, 1), one(4, 2)].concat()).is_empty());
        assert!(all(&one(u16::MAX, 1)).is_empty());
        assert!(all(&[1, 2, 3]).is_empty());
    }
}
