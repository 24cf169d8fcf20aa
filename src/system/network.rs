//! The network, as the kernel tells of it: word that a link or an address changed (rtnetlink, RFC 3549), and
//! whether the way out is a mobile link.
//!
//! Owns the socket on which word comes, of which nothing is read but that there is one, and what a default route
//! is. Never changes anything, and never knows what a link costs: only what it is.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};

use super::netlink::{Table, aligned, attributes, number};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR` and `RTMGRP_IPV6_ROUTE` of
/// `linux/rtnetlink.h`: what changes when a cable or a modem comes back.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

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

/// `ARPHRD_PPP` of `linux/if_arp.h`: a modem that is dialled.
const PPP: &str = "512";

/// `RTM_GETROUTE` and `RTM_NEWROUTE` of `linux/rtnetlink.h`.
const ROUTES: Table = Table {
    protocol: SockProtocol::NetlinkRoute,
    question: 26,
    answer: 24,
};

/// `AF_INET` and `AF_INET6`; `RT_TABLE_MAIN`; `RTN_UNICAST`: others lead nowhere.
const FAMILIES: [u8; 2] = [2, 10];
const MAIN: u32 = 254;
const UNICAST: u8 = 1;

/// `RTA_OIF`, `RTA_PRIORITY`, `RTA_MULTIPATH` and `RTA_TABLE`.
const LINK: u16 = 4;
const METRIC: u16 = 6;
const SEVERAL: u16 = 9;
const TABLE: u16 = 15;

/// The length of `struct rtmsg`.
const ROUTE: usize = 12;

/// The ways out of this machine.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct WaysOut {
    /// There is a default route, of IPv4 or of IPv6.
    pub is_any: bool,
    /// The mobile link that one of them goes out by, if one does; of several routes of a family those of the
    /// least metric count.
    pub mobile_link: Option<String>,
}

impl WaysOut {
    /// Looks at the main table of routes. Asks the kernel: a unit with `ProcSubset=pid` has no `/proc/net`.
    ///
    /// # Errors
    /// What the kernel says; the sandbox may have no netlink.
    pub fn look() -> io::Result<Self> {
        let mut links = Vec::new();
        for family in FAMILIES {
            let mut question = vec![family];
            question.resize(ROUTE, 0);
            links.extend(best(&ROUTES.dump(&question, defaults)?));
        }
        // One that has just gone has no name, and leads nowhere.
        let names = links.into_iter().filter_map(|link| {
            let name = if_indextoname(link).ok()?;
            name.into_string().ok()
        });
        Ok(Self::by(names, Path::new("/sys")))
    }

    fn by(links: impl Iterator<Item = String>, sys: &Path) -> Self {
        let links: Vec<String> = links.collect();
        Self {
            is_any: !links.is_empty(),
            mobile_link: links.into_iter().find(|link| is_mobile(sys, link)),
        }
    }
}

/// One default route: its metric, and the numbers of the links that it goes out by.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Way {
    metric: u32,
    links: Vec<u32>,
}

/// The links of the default routes with the least metric.
fn best(routes: &[Way]) -> Vec<u32> {
    let least = routes.iter().map(|route| route.metric).min();
    let best = routes.iter().filter(|route| Some(route.metric) == least);
    best.flat_map(|route| route.links.iter().copied()).collect()
}

/// The default route that a message tells of, if it is one of the main table.
fn defaults(message: &[u8]) -> Option<Way> {
    let &[_, destination, source, _, table, _, _, kind] = message.first_chunk()?;
    let attributes: Vec<_> = attributes(message.get(ROUTE..)?).collect();
    let of = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted);
    let number_of = |wanted: u16| of(wanted).and_then(|(_, content)| number(content, 0));
    let table = number_of(TABLE).unwrap_or(table.into());
    if (destination, source, table, kind) != (0, 0, MAIN, UNICAST) {
        return None;
    }
    let hops = of(SEVERAL).map_or(&[][..], |(_, content)| *content);
    let mut links: Vec<u32> = next_hops(hops).collect();
    links.extend(number_of(LINK));
    Some(Way {
        metric: number_of(METRIC).unwrap_or_default(),
        links,
    })
}

/// The links of a route that goes out by several: the numbers in each `struct rtnexthop`.
fn next_hops(mut bytes: &[u8]) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let &[a, b] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let hop = bytes.get(..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        number(hop, 4)
    })
}

fn is_mobile(sys: &Path, link: &str) -> bool {
    let read = |name: &str| {
        let path = sys.join("class/net").join(link).join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    read("type").trim() == PPP || read("uevent").lines().any(|line| line == "DEVTYPE=wwan")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, content: &[u8]) -> Vec<u8> {
        let length = 4 + content.len() as u16;
        let mut attribute = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        attribute.extend(content);
        attribute.resize(aligned(attribute.len()), 0);
        attribute
    }

    fn message(destination: u8, table: u8, kind: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let head = [2, destination, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
        [&head[..], &attributes.concat()].concat()
    }

    fn link(number: u32) -> Vec<u8> {
        attribute(LINK, &number.to_ne_bytes())
    }

    fn metric(metric: u32) -> Vec<u8> {
        attribute(METRIC, &metric.to_ne_bytes())
    }

    #[test]
    fn of_several_default_routes_the_best_count() {
        let route = |number, value| defaults(&message(0, 254, 1, &[link(number), metric(value)]));
        let of = |routes: [Option<Way>; 2]| best(&routes.map(|route| route.expect("a default")));
        assert_eq!(of([route(2, 100), route(3, 700)]), [2]);
        assert_eq!(of([route(2, 700), route(3, 100)]), [3]);
        assert_eq!(of([route(2, 0), route(3, 0)]), [2, 3]);
        // IPv4 tells of no metric where it is 0.
        let silent = defaults(&message(0, 254, 1, &[link(4)]));
        assert_eq!(of([route(2, 1), silent]), [4]);
        assert!(best(&[]).is_empty());
    }

    #[test]
    fn what_is_no_default_route_is_no_way_out() {
        assert_eq!(
            defaults(&message(24, 254, 1, &[link(2)])),
            None,
            "a network"
        );
        assert_eq!(
            defaults(&message(0, 255, 1, &[link(2)])),
            None,
            "the local table"
        );
        assert_eq!(
            defaults(&message(0, 254, 7, &[link(2)])),
            None,
            "unreachable"
        );
        let other = attribute(TABLE, &1000_u32.to_ne_bytes());
        assert_eq!(defaults(&message(0, 254, 1, &[other, link(2)])), None);
        assert_eq!(defaults(&[0; 11]), None);
        assert_eq!(defaults(&[]), None);
        let nowhere = defaults(&message(0, 254, 1, &[])).expect("a default");
        assert!(nowhere.links.is_empty());
    }

    #[test]
    fn a_route_that_goes_out_by_several_links_goes_out_by_each() {
        let hop = |number: u32| {
            let mut hop = vec![16, 0, 0, 0];
            hop.extend(number.to_ne_bytes());
            hop.extend(attribute(5, &[1, 2, 3, 4]));
            hop
        };
        let hops = attribute(SEVERAL, &[hop(2), hop(3)].concat());
        let route = defaults(&message(0, 254, 1, &[hops])).expect("a default");
        assert_eq!(route.links, [2, 3]);
        let odd = attribute(SEVERAL, &[0; 16]);
        let route = defaults(&message(0, 254, 1, &[odd])).expect("a default");
        assert!(route.links.is_empty());
    }

    #[test]
    fn a_link_is_mobile_by_what_the_kernel_calls_it() {
        let sys = std::env::temp_dir().join(format!("edgerepl-network-{}", std::process::id()));
        let _ = fs::remove_dir_all(&sys);
        let write = |path: &str, text: &str| {
            let path = sys.join("class/net").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        write("eth0/type", "1\n");
        write("eth0/uevent", "INTERFACE=eth0\nIFINDEX=2\n");
        write("wwan0/type", "65534\n");
        write("wwan0/uevent", "DEVTYPE=wwan\nINTERFACE=wwan0\n");
        write("ppp0/type", "512\n");
        let by = |links: &[&str]| {
            let links = links.iter().map(|link| (*link).to_owned());
            let ways = WaysOut::by(links, &sys);
            (ways.is_any, ways.mobile_link)
        };
        let mobile = |link: &str| (true, Some(link.to_owned()));
        assert_eq!(by(&[]), (false, None));
        assert_eq!(by(&["eth0"]), (true, None));
        assert_eq!(by(&["eth0", "wwan0"]), mobile("wwan0"));
        assert_eq!(by(&["ppp0"]), mobile("ppp0"));
        assert_eq!(by(&["gone0"]), (true, None));
        fs::remove_dir_all(&sys).expect("the folder");
    }

    /// As `ip route` and `/proc/net/route` of this machine have it.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_kernel_is_asked() {
        let ways = WaysOut::look().expect("an answer");
        let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let is_default = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000")
        };
        if table.lines().any(is_default) {
            assert!(ways.is_any, "{table}");
        }
    }
}
