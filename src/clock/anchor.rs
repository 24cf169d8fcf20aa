//! The time that has certainly passed, for devices that boot in 1970.
//!
//! Owns a fact that only grows: the latest of when this program was built, what the provider's
//! verified answers said, and what an earlier run wrote down of them. Certificates are judged at no
//! earlier time, so that a device without a clock of its own can fetch at all, and one whose clock
//! was turned back believes nothing that had expired before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::WallTime;

/// Flash is spared: a day makes no difference to a certificate.
const WRITE_PACE: Duration = Duration::from_secs(86_400);

/// The latest time that is known to have passed.
#[derive(Debug)]
pub struct Anchor {
    latest: WallTime,
    written: WallTime,
    file: Option<PathBuf>,
}

impl Anchor {
    /// The anchor that an earlier run left in `state`, if that is given and holds one.
    pub fn load(state: Option<&Path>) -> Self {
        let file = state.map(|folder| folder.join("last-good-time"));
        let written = file
            .as_ref()
            .and_then(|file| fs::read_to_string(file).ok()?.trim().parse().ok())
            .unwrap_or_default();
        Self {
            latest: WallTime::of_build().max(written),
            written,
            file,
        }
    }

    /// The time itself.
    pub const fn latest(&self) -> WallTime {
        self.latest
    }

    /// Takes in what a verified server said, and writes it down now and then.
    pub fn advance(&mut self, verified: WallTime) {
        self.latest = self.latest.max(verified);
        if let Some(file) = &self.file
            && self.latest - self.written >= WRITE_PACE
        {
            // Torn or missing, it costs nothing but the anchor: then the build time serves.
            let beside = file.with_extension("new");
            let kept = fs::write(&beside, format!("{}\n", self.latest))
                .and_then(|()| fs::rename(&beside, file));
            match kept {
                Ok(()) => self.written = self.latest,
                Err(e) => log::debug!("{} can't be written: {e}", file.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_grows_and_outlives_the_process() {
        let folder = std::env::temp_dir().join(format!("edgerepl-anchor-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let mut anchor = Anchor::load(Some(&folder));
        assert_eq!(anchor.latest(), WallTime::of_build());
        let later = WallTime::of_build() + Duration::from_secs(100_000);
        anchor.advance(later);
        anchor.advance(WallTime::from_unix(0));
        assert_eq!(anchor.latest(), later);
        assert_eq!(Anchor::load(Some(&folder)).latest(), later);
        fs::write(folder.join("last-good-time"), "junk").expect("a torn file");
        assert_eq!(Anchor::load(Some(&folder)).latest(), WallTime::of_build());
        fs::remove_dir_all(&folder).expect("the folder");
    }
}
