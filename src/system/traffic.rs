//! What processes have sent over TCP, as the kernel knows it (sock_diag, `linux/inet_diag.h`).
//!
//! Owns the count over connections that come and go: bytes that the other end has acknowledged, which no
//! buffer here and no write to a disk can feign. Connections that somebody else opened are left out. Reads
//! `/proc` and asks the kernel, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// `SOCK_DIAG_BY_FAMILY`; `NLM_F_REQUEST | NLM_F_DUMP`; `NLMSG_ERROR`, `NLMSG_DONE`.
const BY_FAMILY: u16 = 20;
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;

/// `AF_INET` and `AF_INET6`, `IPPROTO_TCP`.
const FAMILIES: [u8; 2] = [2, 10];
const TCP: u8 = 6;

/// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT` and `TCP_LISTEN`, as bits; the last one as a number, too.
const STATES: u32 = 1 << 1 | 1 << 8 | 1 << LISTEN;
const LISTEN: u8 = 10;

/// `INET_DIAG_INFO`, and where `struct tcp_info` has `tcpi_bytes_acked` (since Linux 4.1).
const INFO: u16 = 2;
const ACKNOWLEDGED: usize = 120;

/// The lengths of `struct nlmsghdr`, `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const HEADER: usize = 16;
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

/// A dump is read in pieces of at most so many bytes, and no longer one is read: a device has some hundred
/// sockets.
const PIECE: usize = 32 * 1024;
const MOST_PIECES: usize = 256;

/// What some processes send, from one look to the next.
#[derive(Debug, Default)]
pub struct Traffic {
    /// What each connection had sent at the last look.
    connections: BTreeMap<u32, u64>,
    total: u64,
}

/// What is known at one look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Flow {
    /// All that the other ends have acknowledged so far, in bytes, as far as it was seen.
    pub acknowledged: u64,
    /// What waits to be sent or acknowledged.
    pub queued: u64,
}

/// A socket, as the kernel tells of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Socket {
    inode: u32,
    port: u16,
    listens: bool,
    queued: u32,
    /// Older kernels do not count it.
    acknowledged: Option<u64>,
}

impl Traffic {
    /// Looks at what these processes have sent. A connection that has ended since the last look counts with
    /// what was seen of it.
    ///
    /// # Errors
    /// What the kernel says: it may have no sock_diag, and the processes may be another user's.
    pub fn look(&mut self, processes: &[u32]) -> io::Result<Flow> {
        let mut inodes = BTreeSet::new();
        for pid in processes {
            inodes.extend(sockets_of(*pid)?);
        }
        let mut sockets = Vec::new();
        for family in FAMILIES {
            sockets.extend(dump(family)?);
        }
        sockets.retain(|socket| inodes.contains(&socket.inode));
        self.take_in(&sockets)
    }

    fn take_in(&mut self, sockets: &[Socket]) -> io::Result<Flow> {
        let doors: BTreeSet<u16> = sockets
            .iter()
            .filter(|socket| socket.listens)
            .map(|socket| socket.port)
            .collect();
        let is_own = |socket: &&Socket| !socket.listens && !doors.contains(&socket.port);
        let before = std::mem::take(&mut self.connections);
        let mut queued = 0_u64;
        for socket in sockets.iter().filter(is_own) {
            let acknowledged = socket.acknowledged.ok_or(ErrorKind::Unsupported)?;
            let known = before.get(&socket.inode).copied().unwrap_or_default();
            // A number that went back is another connection's with the same inode.
            let more = acknowledged.checked_sub(known).unwrap_or(acknowledged);
            self.total = self.total.saturating_add(more);
            self.connections.insert(socket.inode, acknowledged);
            queued = queued.saturating_add(socket.queued.into());
        }
        Ok(Flow {
            acknowledged: self.total,
            queued,
        })
    }
}

/// The inodes of the sockets that a process holds; none of one that is gone.
fn sockets_of(pid: u32) -> io::Result<Vec<u32>> {
    let held = match fs::read_dir(format!("/proc/{pid}/fd")) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        held => held?,
    };
    let inode = |fd: fs::DirEntry| {
        let target = fs::read_link(fd.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?;
        inode.strip_suffix(']')?.parse().ok()
    };
    Ok(held.flatten().filter_map(inode).collect())
}

/// All TCP sockets of one family.
fn dump(family: u8) -> io::Result<Vec<Socket>> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let diag = SockProtocol::NetlinkSockDiag;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, diag)?;
    send(netlink.as_raw_fd(), &request(family), MsgFlags::empty())?;
    read(&netlink)
}

fn read(netlink: &OwnedFd) -> io::Result<Vec<Socket>> {
    let mut sockets = Vec::new();
    let mut piece = vec![0; PIECE];
    for _ in 0..MOST_PIECES {
        let length = recv(netlink.as_raw_fd(), &mut piece, MsgFlags::empty())?;
        if parse(&piece[..length], &mut sockets)? {
            return Ok(sockets);
        }
    }
    Err(ErrorKind::FileTooLarge.into())
}

/// A dump of the sockets of one family, with `struct tcp_info`.
fn request(family: u8) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend((HEADER as u32 + REQUEST as u32).to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    // Number and sender.
    request.extend([0; 8]);
    request.extend([family, TCP, 1 << (INFO - 1), 0]);
    request.extend(STATES.to_ne_bytes());
    // Any address, port and cookie.
    request.resize(HEADER + REQUEST, 0);
    request
}

/// Takes in a piece of a dump; whether it was the last one.
fn parse(mut piece: &[u8], sockets: &mut Vec<Socket>) -> io::Result<bool> {
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
            BY_FAMILY => sockets.extend(socket_in(message)),
            _ => {}
        }
        piece = piece.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The socket that a message tells of.
fn socket_in(message: &[u8]) -> Option<Socket> {
    let mut attributes = message.get(MESSAGE..)?;
    let mut acknowledged = None;
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        if u16::from_ne_bytes([c, d]) == INFO {
            let count = attributes.get(4..length)?.get(ACKNOWLEDGED..)?;
            acknowledged = count.first_chunk().copied().map(u64::from_ne_bytes);
        }
        if length < 4 {
            return None;
        }
        attributes = attributes.get(aligned(length)..).unwrap_or_default();
    }
    Some(Socket {
        inode: number(message, 68)?,
        port: u16::from_be_bytes([message[4], message[5]]),
        listens: message[1] == LISTEN,
        queued: number(message, 60)?,
        acknowledged,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .copied()
        .map(u32::from_ne_bytes)
}

fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    /// QEMU, which runs the tests of other processors, has no sock_diag in its user mode.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_other_end_has_is_counted_and_what_it_refuses_is_not() {
        use std::io::{Read, Write};
        use std::net::{TcpListener, TcpStream};
        use std::time::{Duration, Instant};

        let me = [std::process::id()];
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        // Other tests of this process may be connected, too: what they send is little.
        let mut traffic = Traffic::default();
        let before = traffic.look(&me).expect("a look");
        let mut client = TcpStream::connect(address).expect("a connection");
        let (mut server, _) = listener.accept().expect("a client");
        client.set_nonblocking(true).expect("it does not wait");
        let mut written = 0;
        while let Ok(length) = client.write(&[7; 65_536]) {
            written += length as u64;
        }
        let full = traffic.look(&me).expect("a look");
        let taken = full.acknowledged - before.acknowledged;
        assert!(taken < written, "{taken} of {written}");
        assert!(full.queued >= written - taken, "{full:?} of {written}");

        server.set_nonblocking(true).expect("it does not wait");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut last = full;
        while last.acknowledged - before.acknowledged < written && Instant::now() < deadline {
            while server.read(&mut [0; 65_536]).is_ok_and(|read| read > 0) {}
            last = traffic.look(&me).expect("a look");
        }
        let all = last.acknowledged - before.acknowledged;
        assert!(
            all >= written && all < written + 65_536,
            "{all} of {written}"
        );
        // What has gone stays counted.
        drop((client, server));
        let after = traffic.look(&me).expect("a look");
        assert!(after.acknowledged >= last.acknowledged, "{after:?}");
    }

    #[test]
    fn whoever_connects_to_it_is_not_an_upload() {
        let socket = |inode, port, listens, acknowledged| Socket {
            inode,
            port,
            listens,
            queued: 5,
            acknowledged: Some(acknowledged),
        };
        let mut traffic = Traffic::default();
        let mut look = |sockets: &[Socket]| traffic.take_in(sockets).expect("a count");
        let served = [socket(1, 9090, true, 0), socket(2, 9090, false, 1 << 40)];
        assert_eq!(look(&served), Flow::default());
        let own = look(&[served[0], served[1], socket(3, 40_000, false, 100)]);
        assert_eq!((own.acknowledged, own.queued), (100, 5));
        assert_eq!(look(&[socket(3, 40_000, false, 150)]).acknowledged, 150);
        // Another connection of the same number.
        assert_eq!(look(&[socket(3, 40_001, false, 10)]).acknowledged, 160);
        assert_eq!(look(&[]).acknowledged, 160);
        let unknown = Socket {
            acknowledged: None,
            ..socket(4, 40_002, false, 0)
        };
        assert!(traffic.take_in(&[unknown]).is_err(), "an old kernel's");
    }

    #[test]
    fn what_the_kernel_never_says_is_refused() {
        let mut sockets = Vec::new();
        let header = |length: u32, kind: u16| {
            let mut header = length.to_ne_bytes().to_vec();
            header.extend(kind.to_ne_bytes());
            header.resize(HEADER, 0);
            header
        };
        assert!(parse(&header(u32::MAX, BY_FAMILY), &mut sockets).is_err());
        assert!(parse(&header(0, BY_FAMILY), &mut sockets).is_err());
        assert!(parse(&header(16, ERROR), &mut sockets).is_err());
        assert!(!parse(&[1, 2, 3], &mut sockets).expect("a piece"));
        assert!(!parse(&header(16, BY_FAMILY), &mut sockets).expect("a piece"));
        assert!(parse(&header(16, DONE), &mut sockets).expect("a piece"));
        let mut long = header(16 + 72 + 4, BY_FAMILY);
        long.resize(16 + 72, 0);
        long.extend([0; 4]);
        assert!(!parse(&long, &mut sockets).expect("a piece"));
        assert_eq!(sockets, []);
    }
}
