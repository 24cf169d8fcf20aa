//! Word from the kernel that a link or an address changed (rtnetlink, RFC 3549).
//!
//! Owns one socket and reads nothing out of the messages: that there is one is all that is asked.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` of
/// `linux/rtnetlink.h`: what changes when a cable or a modem comes back.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100;

/// No more is read in one turn of the loop: a network that changes without end holds nothing else up.
const MESSAGES_AT_ONCE: usize = 64;

/// A subscription to changes of the network.
#[derive(Debug)]
pub struct NetworkWatch(OwnedFd);

impl NetworkWatch {
    /// Subscribes.
    ///
    /// # Errors
    /// Where the kernel or the unit's sandbox has no netlink.
    pub fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let route = SockProtocol::NetlinkRoute;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, route)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// Whether anything changed since the last call.
    pub fn drain(&self) -> bool {
        let mut changed = false;
        let mut message = [0; 4096];
        for _ in 0..MESSAGES_AT_ONCE {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                // More changed than the kernel could queue.
                Ok(1..) | Err(Errno::ENOBUFS) => changed = true,
                Err(Errno::EINTR) => {}
                Ok(_) | Err(_) => return changed,
            }
        }
        changed
    }
}

impl AsFd for NetworkWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
