//! The line to S3, as this machine sees it: whether it is metered, and whether there is a way out.
//!
//! Owns what was seen of it last: only news makes an event. Looks while something else happens, and wakes nobody.
//! Never decides what waits for it.

use std::path::{Path, PathBuf};

use crate::agent::Event;
use crate::config::Metered;
use crate::system::network;

#[derive(Debug)]
pub(super) struct Line {
    /// Where `/proc` and `/sys` are.
    root: PathBuf,
    is_metered: bool,
    is_mobile: bool,
    has_way_out: bool,
}

impl Line {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            is_metered: false,
            is_mobile: network::mobile_link(root).is_some(),
            has_way_out: network::has_way_out(root),
        }
    }

    /// The kernel says that something changed.
    pub(super) fn changed(&mut self) -> Option<Event> {
        self.is_mobile = network::mobile_link(&self.root).is_some();
        let has_way_out = network::has_way_out(&self.root);
        let had_way_out = std::mem::replace(&mut self.has_way_out, has_way_out);
        (has_way_out && !had_way_out).then_some(Event::NetworkBack)
    }

    /// Whether it is metered, if that is news.
    pub(super) fn meters(&mut self, metered: &Metered) -> Option<Event> {
        let is_metered = match metered {
            Metered::Fixed(is_metered) => *is_metered,
            Metered::OnMobileLink => self.is_mobile,
            // A file that can't be looked at is not one that a modem manager made.
            Metered::While(file) => file.symlink_metadata().is_ok(),
        };
        let was_metered = std::mem::replace(&mut self.is_metered, is_metered);
        (is_metered != was_metered).then_some(Event::Metered(is_metered))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n";

    fn default_route(link: &str) -> String {
        format!("{HEAD}{link} 00000000 01020304 0003 0 0 0 00000000 0 0 0\n")
    }

    #[test]
    fn only_news_is_told() {
        let root = std::env::temp_dir().join(format!("edgerepl-line-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("proc/net")).expect("a folder");
        fs::create_dir_all(root.join("sys/class/net/ppp0")).expect("a folder");
        fs::write(root.join("sys/class/net/ppp0/type"), "512\n").expect("a link");
        let routes = |text: &str| fs::write(root.join("proc/net/route"), text).expect("routes");
        let file = root.join("metered");
        let metered = [
            Metered::Fixed(false),
            Metered::OnMobileLink,
            Metered::While(file.clone()),
        ];
        let [never, mobile, by_file] = &metered;

        routes(HEAD);
        let mut line = Line::new(&root);
        assert_eq!(line.changed(), None, "there is no way out still");
        assert_eq!(line.meters(mobile), None);
        routes(&default_route("ppp0"));
        assert_eq!(line.meters(mobile), None, "the kernel has said nothing");
        assert_eq!(line.changed(), Some(Event::NetworkBack));
        assert_eq!(line.meters(mobile), Some(Event::Metered(true)));
        assert_eq!((line.changed(), line.meters(mobile)), (None, None));
        routes(&default_route("eth0"));
        assert_eq!(line.changed(), None, "another way out");
        assert_eq!(line.meters(mobile), Some(Event::Metered(false)));
        routes(HEAD);
        assert_eq!(line.changed(), None, "none");
        routes(&default_route("eth0"));
        assert_eq!(line.changed(), Some(Event::NetworkBack));

        assert_eq!(line.meters(by_file), None);
        fs::write(&file, "").expect("a file");
        assert_eq!(line.meters(by_file), Some(Event::Metered(true)));
        assert_eq!(line.meters(never), Some(Event::Metered(false)), "a reload");
        assert_eq!(
            line.meters(&Metered::Fixed(true)),
            Some(Event::Metered(true))
        );
        fs::remove_file(&file).expect("it was there");
        assert_eq!(line.meters(by_file), Some(Event::Metered(false)));
        fs::remove_dir_all(&root).expect("the folder");
    }
}
