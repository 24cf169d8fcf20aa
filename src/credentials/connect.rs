//! TCP to the address of a name that answers first (Happy Eyeballs, RFC 8305).
//!
//! Owns the order of the addresses, and the race between them. An address wins when its server has
//! sent something, not when TCP is open: a path that drops large packets opens TCP, too. Never
//! waits for one address only while another is left, and never gives up because one fails.

use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, socket};

/// How long the next address waits for the one before to open TCP (RFC 8305, 8).
const STAGGER: Duration = Duration::from_millis(250);

/// How long it waits for one whose TCP is open to say something.
const SILENCE: Duration = Duration::from_millis(900);

/// The families in turns, each in the resolver's order; begun with another address after each
/// failure, because an address that opens and never answers must not stay the first.
pub(super) fn order(
    found: impl IntoIterator<Item = SocketAddr>,
    failures: usize,
) -> Vec<SocketAddr> {
    let mut found = found.into_iter().peekable();
    let first_is_v6 = found.peek().is_some_and(SocketAddr::is_ipv6);
    let (mut one, mut other): (VecDeque<_>, VecDeque<_>) =
        found.partition(|address| address.is_ipv6() == first_is_v6);
    let mut ordered = Vec::with_capacity(one.len() + other.len());
    while !one.is_empty() || !other.is_empty() {
        ordered.extend(one.pop_front());
        ordered.extend(other.pop_front());
    }
    let begin = failures.checked_rem(ordered.len()).unwrap_or(0);
    ordered.rotate_left(begin);
    ordered
}

/// Begins to connect, and does not wait for it.
pub(super) fn begin(address: SocketAddr) -> io::Result<TcpStream> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(family, SockType::Stream, flags, None)?;
    match socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(TcpStream::from(socket)),
        Err(e) => Err(e.into()),
    }
}

/// Connects to each of the addresses, a moment apart, until a server answers what `greet` says;
/// the others are closed. `begin` starts a connection.
///
/// # Errors
/// `TimedOut` at the limit; before it, what the last address said, once all have failed.
pub(super) fn race<T>(
    addresses: &[SocketAddr],
    limit: Duration,
    mut begin: impl FnMut(SocketAddr) -> io::Result<TcpStream>,
    mut greet: impl FnMut(&mut TcpStream) -> io::Result<T>,
) -> io::Result<(TcpStream, T)> {
    let end = Instant::now() + limit;
    let mut waiting = addresses.iter();
    let mut attempts: Vec<Attempt<T>> = Vec::new();
    let mut next = Instant::now();
    let mut last = io::Error::from(ErrorKind::AddrNotAvailable);
    loop {
        let now = Instant::now();
        if now >= end {
            return Err(ErrorKind::TimedOut.into());
        }
        if next <= now {
            match waiting.next() {
                Some(address) => match begin(*address) {
                    Ok(stream) => {
                        attempts.push(Attempt::Opening(stream));
                        next = now + STAGGER;
                    }
                    Err(e) => {
                        log::debug!("{address}: {e}");
                        last = e;
                        continue;
                    }
                },
                None if attempts.is_empty() => return Err(last),
                None => next = end,
            }
        }
        let ready = wait(&attempts, next.min(end) - now)?;
        let mut still = Vec::with_capacity(attempts.len());
        for (attempt, ready) in attempts.into_iter().zip(ready) {
            if !ready {
                still.push(attempt);
                continue;
            }
            match attempt.go_on(&mut greet) {
                Ok(Progress::Answered(stream, greeted)) => return Ok((stream, greeted)),
                Ok(Progress::Greeted(attempt)) => {
                    next = Instant::now() + SILENCE;
                    still.push(attempt);
                }
                Ok(Progress::None(attempt)) => still.push(attempt),
                Err(e) => {
                    log::debug!("one address of {}: {e}", addresses.len());
                    last = e;
                    next = Instant::now();
                }
            }
        }
        attempts = still;
    }
}

/// Which of the attempts have news, within a time.
fn wait<T>(attempts: &[Attempt<T>], time: Duration) -> io::Result<Vec<bool>> {
    let mut polled: Vec<PollFd<'_>> = attempts
        .iter()
        .map(|attempt| match attempt {
            Attempt::Opening(stream) => PollFd::new(stream.as_fd(), PollFlags::POLLOUT),
            Attempt::Greeted(stream, _) => PollFd::new(stream.as_fd(), PollFlags::POLLIN),
        })
        .collect();
    // A millisecond more: else the last one is spent spinning.
    let time = PollTimeout::try_from(time.as_millis() + 1).unwrap_or(PollTimeout::MAX);
    match poll(&mut polled, time) {
        Ok(_) | Err(Errno::EINTR) => Ok(polled.iter().map(|fd| fd.any() == Some(true)).collect()),
        Err(e) => Err(e.into()),
    }
}

enum Attempt<T> {
    /// TCP is about to be open.
    Opening(TcpStream),
    /// TCP is open, and what was said to the server has not been answered yet.
    Greeted(TcpStream, T),
}

enum Progress<T> {
    None(Attempt<T>),
    Greeted(Attempt<T>),
    Answered(TcpStream, T),
}

impl<T> Attempt<T> {
    fn go_on(
        self,
        greet: &mut impl FnMut(&mut TcpStream) -> io::Result<T>,
    ) -> io::Result<Progress<T>> {
        match self {
            Self::Opening(mut stream) => match stream.take_error()? {
                Some(error) => Err(error),
                None => {
                    let greeted = greet(&mut stream)?;
                    Ok(Progress::Greeted(Self::Greeted(stream, greeted)))
                }
            },
            Self::Greeted(stream, greeted) => match stream.peek(&mut [0]) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => {
                    stream.set_nonblocking(false)?;
                    Ok(Progress::Answered(stream, greeted))
                }
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    Ok(Progress::None(Self::Greeted(stream, greeted)))
                }
                Err(e) => Err(e),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use nix::sys::socket::Backlog;

    use super::*;

    /// Far more than anything here takes on a busy machine.
    const LIMIT: Duration = Duration::from_secs(60);

    /// What is not reached at all answers nothing, and is held as long as this lives.
    struct Dead {
        address: SocketAddr,
        _queue: Vec<TcpStream>,
    }

    impl Dead {
        /// A listener with a full queue: what else comes is dropped, as by a route that leads
        /// nowhere.
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            socket::listen(&listener, Backlog::new(0).expect("no queue")).expect("a listener");
            let address = listener.local_addr().expect("an address");
            let attempts = (0..4).map(|_| begin(address).expect("an attempt"));
            let _queue = attempts.collect();
            // Its descriptor stays open up to the end of the process.
            std::mem::forget(listener);
            Self { address, _queue }
        }
    }

    fn silent() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::mem::forget(listener);
        address
    }

    fn closed() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    }

    /// One that answers each greeting after so long.
    fn well(after: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                thread::spawn(move || {
                    thread::sleep(after);
                    let mut said = [0; 5];
                    if stream.read_exact(&mut said).is_ok() && &said == b"hello" {
                        // The other side may have gone to another address meanwhile.
                        let _ = stream.write_all(b"welcome");
                        let _ = stream.read(&mut said);
                    }
                });
            }
        });
        address
    }

    /// One that ends each connection.
    fn slammed() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        thread::spawn(move || listener.incoming().for_each(drop));
        address
    }

    fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<SocketAddr> {
        let greet = |stream: &mut TcpStream| stream.write_all(b"hello");
        let (mut stream, ()) = race(addresses, limit, begin, greet)?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"welcome");
        stream.peer_addr()
    }

    #[test]
    fn no_address_that_is_dead_hides_one_that_is_well() {
        let well = well(Duration::from_millis(60));
        let dead: Vec<_> = (0..15).map(|_| Dead::new()).collect();
        let dead: Vec<_> = dead.iter().map(|dead| dead.address).collect();
        let is_dead = connect(&dead[..1], Duration::from_secs(2)).expect_err("a dead address");
        assert_eq!(is_dead.kind(), ErrorKind::TimedOut);
        for bad in [
            dead,
            (0..15).map(|_| closed()).collect(),
            (0..5).map(|_| silent()).collect(),
            (0..15).map(|_| slammed()).collect(),
        ] {
            let addresses = [bad, vec![well]].concat();
            // In turns an address costs a second at the most; one at a time all of them cost more.
            let limit = Duration::from_secs(9);
            assert_eq!(connect(&addresses, limit).expect("connected"), well);
        }
    }

    #[test]
    fn a_server_that_is_slow_to_answer_is_still_waited_for() {
        let well = well(Duration::from_secs(3));
        let addresses = [well, closed(), silent()];
        assert_eq!(connect(&addresses, LIMIT).expect("connected"), well);
    }

    #[test]
    fn whatever_one_address_says_the_next_is_tried_at_once() {
        let v4 = well(Duration::ZERO);
        let v6: SocketAddr = "[2001:db8::1]:443".parse().expect("an address");
        for says in [
            Errno::EACCES,
            Errno::EPERM,
            Errno::ENETUNREACH,
            Errno::EHOSTUNREACH,
            Errno::EADDRNOTAVAIL,
            Errno::EAFNOSUPPORT,
            Errno::EINVAL,
            Errno::ETIMEDOUT,
            Errno::ECONNREFUSED,
            Errno::ENETDOWN,
            Errno::EPROTO,
        ] {
            let mut tried = Vec::new();
            let begin = |address: SocketAddr| {
                tried.push(address);
                match address.is_ipv6() {
                    true => Err(says.into()),
                    false => begin(address),
                }
            };
            let greet = |stream: &mut TcpStream| stream.write_all(b"hello");
            race(&[v6, v6, v4], LIMIT, begin, greet).expect("connected over IPv4");
            assert_eq!(tried, [v6, v6, v4]);
            let refused = race(&[v6], LIMIT, |_| Err(says.into()), greet).map(drop);
            assert_eq!(
                refused.expect_err("an error").raw_os_error(),
                Some(says as i32)
            );
        }
        assert!(connect(&[], LIMIT).is_err());
    }

    #[test]
    fn families_take_turns_and_no_number_of_addresses_hides_one() {
        let v6 = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 443));
        let v4 = |n: u8| SocketAddr::from(([192, 0, 2, n], 443));
        let found = [v6(1), v6(2), v6(3), v4(1), v4(2)];
        let turns = [v6(1), v4(1), v6(2), v4(2), v6(3)];
        assert_eq!(order(found, 0), turns);
        let found = [v4(1), v4(2), v6(1)];
        assert_eq!(order(found, 0), [v4(1), v6(1), v4(2)]);
        let many = (0..17).map(v6).chain([v4(1)]);
        assert_eq!(order(many, 0)[1], v4(1));
        // After each failure another one begins.
        let begun: Vec<_> = (0..6).map(|failures| order(found, failures)[0]).collect();
        assert_eq!(begun[..3], order(found, 0));
        assert_eq!(begun[..3], begun[3..]);
        assert_eq!(order([], 7), []);
    }
}
