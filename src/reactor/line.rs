//! The line to S3, as this machine sees it: whether it is metered, and whether there is a way out.
//!
//! Owns what was seen of it last: only news makes an event. Looks while something else happens, and wakes nobody.
//! Never decides what waits for it.

use std::io;

use log::warn;

use crate::agent::Event;
use crate::config::Metered;
use crate::system::network::WaysOut;

#[derive(Debug)]
pub(super) struct Line {
    is_metered: bool,
    ways: WaysOut,
    /// Why they were not known at the last look.
    trouble: Option<String>,
}

impl Line {
    pub(super) fn new(ways: io::Result<WaysOut>) -> Self {
        let mut line = Self {
            is_metered: false,
            ways: WaysOut::default(),
            trouble: None,
        };
        line.look(ways);
        line
    }

    /// The kernel says that something changed; what was known stays where it says no more.
    pub(super) fn changed(&mut self, ways: io::Result<WaysOut>) -> Option<Event> {
        let had_way_out = self.ways.is_any;
        self.look(ways);
        (self.ways.is_any && !had_way_out).then_some(Event::NetworkBack)
    }

    fn look(&mut self, ways: io::Result<WaysOut>) {
        let trouble = match ways {
            Ok(ways) => {
                self.ways = ways;
                None
            }
            Err(e) => Some(e.to_string()),
        };
        if let Some(cause) = trouble.as_ref().filter(|_| trouble != self.trouble) {
            warn!(
                "it is not known whether the way out is a mobile link, because the kernel can't be asked: {cause}"
            );
        }
        self.trouble = trouble;
    }

    /// Whether it is metered, if that is news.
    pub(super) fn meters(&mut self, metered: &Metered) -> Option<Event> {
        let is_metered = match metered {
            Metered::Fixed(is_metered) => *is_metered,
            Metered::OnMobileLink => self.ways.mobile_link.is_some(),
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

    #[test]
    fn only_news_is_told() {
        let root = std::env::temp_dir().join(format!("edgerepl-line-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).expect("a folder");
        let by = |link: Option<&str>, is_any| {
            Ok(WaysOut {
                is_any,
                mobile_link: link.map(str::to_owned),
            })
        };
        let nowhere = || by(None, false);
        let cable = || by(None, true);
        let modem = || by(Some("ppp0"), true);
        let file = root.join("metered");
        let metered = [
            Metered::Fixed(false),
            Metered::OnMobileLink,
            Metered::While(file.clone()),
        ];
        let [never, mobile, by_file] = &metered;

        let mut line = Line::new(nowhere());
        assert_eq!(line.changed(nowhere()), None, "there is no way out still");
        assert_eq!(line.meters(mobile), None);
        assert_eq!(line.changed(modem()), Some(Event::NetworkBack));
        assert_eq!(line.meters(mobile), Some(Event::Metered(true)));
        assert_eq!((line.changed(modem()), line.meters(mobile)), (None, None));
        let denied = || Err(io::ErrorKind::PermissionDenied.into());
        assert_eq!((line.changed(denied()), line.meters(mobile)), (None, None));
        assert_eq!(line.changed(cable()), None, "another way out");
        assert_eq!(line.meters(mobile), Some(Event::Metered(false)));
        assert_eq!(line.changed(nowhere()), None, "none");
        assert_eq!(line.changed(cable()), Some(Event::NetworkBack));

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
