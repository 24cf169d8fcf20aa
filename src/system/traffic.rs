//! What processes have sent over TCP, as the kernel knows it (sock_diag, `linux/inet_diag.h`).
//!
//! Owns the count over connections that come and go: bytes that the other end has acknowledged, which no
//! buffer here and no write to a disk can feign. Connections that somebody else opened are left out. Reads
//! `/proc` and asks the kernel, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};

use nix::sys::socket::SockProtocol;

use super::netlink::{Table, attributes, number};

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
const SOCKETS: Table = Table {
    protocol: SockProtocol::NetlinkSockDiag,
    question: BY_FAMILY,
    answer: BY_FAMILY,
};

/// `AF_INET` and `AF_INET6`, `IPPROTO_TCP`.
const FAMILIES: [u8; 2] = [2, 10];
const TCP: u8 = 6;

/// `TCP_ESTABLISHED`, `TCP_CLOSE_WAIT` and `TCP_LISTEN`, as bits; the last one as a number, too.
const STATES: u32 = 1 << 1 | 1 << 8 | 1 << LISTEN;
const LISTEN: u8 = 10;

/// `INET_DIAG_INFO`, and where `struct tcp_info` has `tcpi_bytes_acked` (since Linux 4.1).
const INFO: u16 = 2;
const ACKNOWLEDGED: usize = 120;

/// The lengths of `struct inet_diag_req_v2` and `struct inet_diag_msg`.
const REQUEST: usize = 56;
const MESSAGE: usize = 72;

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
        let mut refused = None;
        for pid in processes {
            match sockets_of(*pid) {
                Ok(held) => inodes.extend(held),
                // A child that keeps its memory to itself, as edgerepl's own do, uploads nothing.
                Err(e) if e.kind() == ErrorKind::PermissionDenied => refused = Some(e),
                Err(e) => return Err(e),
            }
        }
        if let Some(e) = refused.filter(|_| inodes.is_empty()) {
            return Err(e);
        }
        let mut sockets = Vec::new();
        for family in FAMILIES {
            sockets.extend(SOCKETS.dump(&request(family), socket_in)?);
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

/// The question for the TCP sockets of one family, with `struct tcp_info`.
fn request(family: u8) -> Vec<u8> {
    let mut request = vec![family, TCP, 1 << (INFO - 1), 0];
    request.extend(STATES.to_ne_bytes());
    // Any address, port and cookie.
    request.resize(REQUEST, 0);
    request
}

/// The socket that a message tells of.
fn socket_in(message: &[u8]) -> Option<Socket> {
    let info = attributes(message.get(MESSAGE..)?).find(|(kind, _)| *kind == INFO);
    let acknowledged = info.and_then(|(_, info)| {
        let count = info.get(ACKNOWLEDGED..)?.first_chunk().copied();
        count.map(u64::from_ne_bytes)
    });
    Some(Socket {
        inode: number(message, 68)?,
        port: u16::from_be_bytes([message[4], message[5]]),
        listens: message[1] == LISTEN,
        queued: number(message, 60)?,
        acknowledged,
    })
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
    fn what_the_kernel_never_says_is_no_socket() {
        assert_eq!(socket_in(&[]), None);
        assert_eq!(socket_in(&[0; MESSAGE - 1]), None);
        let unknown = socket_in(&[0; MESSAGE]).expect("one without a count");
        assert_eq!(unknown.acknowledged, None);
        let short = [&[0; MESSAGE][..], &[8, 0, 2, 0, 7, 7, 7, 7]].concat();
        assert_eq!(socket_in(&short).and_then(|s| s.acknowledged), None);
    }
}
