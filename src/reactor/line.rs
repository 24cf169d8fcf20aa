//! The line to S3, as this machine sees it: whether it is metered, and whether there is a way out.
//!
//! Owns what was seen of it last: only news makes an event. Looks while something else happens, and wakes nobody.
//! Never decides what waits for it.

use std::path::Path;

use crate::agent::Event;
use crate::config::Metered;
use crate::system::network;

/// Where `/proc` and `/sys` are.
const ROOT: &str = "/";

#[derive(Debug)]
pub(super) struct Line {
    is_metered: bool,
    is_mobile: bool,
    has_way_out: bool,
}

impl Line {
    pub(super) fn new() -> Self {
        let root = Path::new(ROOT);
        Self {
            is_metered: false,
            is_mobile: network::mobile_link(root).is_some(),
            has_way_out: network::has_way_out(root),
        }
    }

    /// The kernel says that something changed.
    pub(super) fn changed(&mut self) -> Option<Event> {
        let root = Path::new(ROOT);
        self.is_mobile = network::mobile_link(root).is_some();
        let has_way_out = network::has_way_out(root);
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
