//! The network, as the kernel tells of it: word that a link or an address changed (rtnetlink, RFC 3549), and
//! whether the way out is a mobile link.
//!
//! Owns one socket and reads nothing out of the messages: that there is one is all that is asked. Never
//! changes anything, and never knows what a link costs: only what it is.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

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

/// `ARPHRD_PPP` of `linux/if_arp.h`: a modem that is dialled.
const PPP: &str = "512";

/// `RTF_UP` and `RTF_REJECT` of `linux/route.h`.
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;

/// The mobile link by which the default route of IPv4 or of IPv6 goes out, if it does; of several routes
/// the one of the least metric counts. `root` is where `/proc` and `/sys` are.
pub fn mobile_link(root: &Path) -> Option<String> {
    let mut links = ways_out(root);
    links.find(|link| is_mobile(root, link))
}

/// Whether there is a default route, of IPv4 or of IPv6.
pub fn has_way_out(root: &Path) -> bool {
    ways_out(root).next().is_some()
}

/// The links that the default routes go out by.
fn ways_out(root: &Path) -> impl Iterator<Item = String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let of_ipv4 = defaults(&read("proc/net/route"), ipv4);
    let of_ipv6 = defaults(&read("proc/net/ipv6_route"), ipv6);
    of_ipv4.into_iter().chain(of_ipv6)
}

/// A default route.
struct Route<'a> {
    link: &'a str,
    metric: u32,
    flags: u32,
}

/// The links of the default routes with the least metric.
fn defaults(table: &str, read: impl Fn(&str) -> Option<Route<'_>>) -> Vec<String> {
    let routes = || {
        let routes = table.lines().filter_map(&read);
        routes.filter(|route| route.flags & (UP | REJECT) == UP)
    };
    let least = routes().map(|route| route.metric).min();
    let best = routes().filter(|route| Some(route.metric) == least);
    best.map(|route| route.link.to_owned()).collect()
}

/// A line of `/proc/net/route`: the link, the destination, the gateway, the flags, two counters, the metric
/// and the mask. The metric is decimal.
fn ipv4(line: &str) -> Option<Route<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [link, "00000000", _, flags, _, _, metric, "00000000", ..] = words[..] else {
        return None;
    };
    Some(Route {
        link,
        metric: metric.parse().ok()?,
        flags: u32::from_str_radix(flags, 16).ok()?,
    })
}

/// A line of `/proc/net/ipv6_route`: the destination, the source and the next hop, the first two with their
/// lengths, the metric, two counters, the flags and the link. All numbers are hexadecimal.
fn ipv6(line: &str) -> Option<Route<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [destination, "00", _, _, _, metric, _, _, flags, link] = words[..] else {
        return None;
    };
    if destination.bytes().any(|digit| digit != b'0') {
        return None;
    }
    let number = |digits| u32::from_str_radix(digits, 16).ok();
    Some(Route {
        link,
        metric: number(metric)?,
        flags: number(flags)?,
    })
}

fn is_mobile(root: &Path, link: &str) -> bool {
    let read = |name: &str| {
        let path = root.join("sys/class/net").join(link).join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    read("type").trim() == PPP || read("uevent").lines().any(|line| line == "DEVTYPE=wwan")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc/net/route` of a device with a cable and a modem, each with its metric.
    fn table(cable: u32, modem: u32) -> String {
        format!(
            "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
             eth0\t00000000\t0101A8C0\t0003\t0\t0\t{cable}\t00000000\t0\t0\t0\n\
             wwan0\t00000000\t01020304\t0003\t0\t0\t{modem}\t00000000\t0\t0\t0\n\
             wwan0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
        )
    }

    /// A line of `/proc/net/ipv6_route`.
    fn default_route(link: &str, metric: &str, flags: &str) -> String {
        let nothing = "0".repeat(32);
        format!("{nothing} 00 {nothing} 00 {nothing} {metric} 00000001 00000000 {flags} {link}\n")
    }

    #[test]
    fn the_way_out_is_mobile_where_the_best_default_route_is() {
        let root = std::env::temp_dir().join(format!("edgerepl-network-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        };
        let link = || mobile_link(&root);
        let wwan = Some("wwan0".to_owned());
        assert_eq!(link(), None, "no network");
        assert!(!has_way_out(&root), "no network");
        write("sys/class/net/eth0/type", "1\n");
        write("sys/class/net/eth0/uevent", "INTERFACE=eth0\nIFINDEX=2\n");
        write("sys/class/net/wwan0/type", "65534\n");
        write(
            "sys/class/net/wwan0/uevent",
            "DEVTYPE=wwan\nINTERFACE=wwan0\n",
        );
        write("sys/class/net/ppp0/type", "512\n");

        write("proc/net/route", &table(100, 700));
        assert_eq!(link(), None, "a modem in reserve");
        assert!(has_way_out(&root));
        write("proc/net/route", &table(700, 100));
        assert_eq!(link(), wwan);
        write("proc/net/route", &table(0, 0));
        assert_eq!(link(), wwan, "either may be taken");

        write("proc/net/route", "Iface\tDestination\n");
        let of = |route: &str| {
            write("proc/net/ipv6_route", route);
            link()
        };
        assert_eq!(of(&default_route("wwan0", "00000400", "00000003")), wwan);
        let ppp = of(&default_route("ppp0", "00000400", "00450003"));
        assert_eq!(ppp, Some("ppp0".to_owned()));
        assert_eq!(of(&default_route("eth0", "00000400", "00000003")), None);
        // The kernel's own, that leads nowhere.
        let nowhere = default_route("lo", "ffffffff", "00200200");
        assert_eq!(of(&nowhere), None);
        assert!(!has_way_out(&root), "it leads nowhere");
        assert_eq!(of(&default_route("wwan0", "00000400", "00200200")), None);
        assert_eq!(of("fe80 40 odd\n\n"), None);
        fs::remove_dir_all(&root).expect("the folder");
    }
}
