//! The rule of a trial boot: how long an image may take to be healthy, and what is its own fault.
//!
//! Owns the verdict, and since when what it needs is so. Pure: it is told what is seen, and when. Never gives an
//! image up for what the image before it could not do either.

use std::time::Duration;

use crate::clock::BootTime;

/// Two looks that are further apart say nothing of the time between them.
const LONGEST_GAP: Duration = Duration::from_secs(300);

/// What is seen of the device at one moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Seen {
    /// Every promise is kept.
    Healthy,
    /// The daemon answers, and something is wrong; the servers that the last good image has reached can be
    /// reached now, or one of them can't.
    Unhealthy {
        problem: String,
        network: Result<(), String>,
    },
    /// No daemon answers.
    Silent(String),
}

/// What is known of the image before this one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Before {
    /// There was one on which the device was healthy, to its end.
    Healthy,
    /// The device was healthy on it, and not in the end: nobody can ask more of this one than that its daemon
    /// runs.
    Ailing,
    /// None is known, so that there is nothing to go back to.
    Unknown,
}

/// Whether the image may stay, each time with the reason.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Stays(String),
    Leaves(String),
    Unknown(String),
}

/// A trial boot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Trial {
    /// When it was last looked.
    pub(super) looked: Option<BootTime>,
    /// Since when no daemon answers, at every look.
    pub(super) silent_since: Option<BootTime>,
    /// For how long the network was there and the device was not healthy.
    pub(super) ill: Duration,
    /// It was so at the last look.
    pub(super) was_ill: bool,
}

impl Trial {
    /// Judges what is seen now. `limit`: how long it may be silent, and for how long it may be ill.
    pub(super) fn judge(
        &mut self,
        seen: Seen,
        before: Before,
        limit: Duration,
        now: BootTime,
    ) -> Verdict {
        let since_look = self.looked.map(|looked| now.since(looked));
        let between = match since_look {
            Some(time) if time <= LONGEST_GAP => time,
            _ => {
                *self = Self::default();
                Duration::ZERO
            }
        };
        self.looked = Some(now);
        self.silent_since = match seen {
            Seen::Silent(_) => self.silent_since.or(Some(now)),
            _ => None,
        };
        let silent = self
            .silent_since
            .map_or(Duration::ZERO, |since| now.since(since));
        let is_ill = matches!(
            &seen,
            Seen::Unhealthy {
                network: Ok(()),
                ..
            }
        );
        match &seen {
            Seen::Healthy => self.ill = Duration::ZERO,
            _ if is_ill && self.was_ill => self.ill += between,
            _ if is_ill => {}
            // It is not asked to be healthy the moment that the network is back, and a link that is lost now and
            // then hides nothing.
            _ => self.ill = self.ill.min(limit / 2),
        }
        self.was_ill = is_ill;
        let ill = self.ill;
        let minutes = |time: Duration| format!("{:.0} min", time.as_secs_f64() / 60.0);
        match seen {
            Seen::Healthy => Verdict::Stays("the device is healthy on this image".to_owned()),
            Seen::Silent(why) if before != Before::Unknown && silent >= limit => Verdict::Leaves(
                format!("no daemon has answered for {}: {why}", minutes(silent)),
            ),
            Seen::Silent(why) => Verdict::Unknown(format!("no daemon answers: {why}")),
            Seen::Unhealthy { problem, network } => match (before, network) {
                (Before::Unknown, _) => {
                    Verdict::Unknown(format!("it is not healthy yet: {problem}"))
                }
                (Before::Ailing, _) => Verdict::Unknown(format!(
                    "it is not healthy, and neither was the image before it in the end: {problem}"
                )),
                (Before::Healthy, Err(away)) => Verdict::Unknown(format!(
                    "it is not healthy, and what the image before it has reached can't be reached now ({away}): \
                     {problem}"
                )),
                (Before::Healthy, Ok(())) if ill >= limit => Verdict::Leaves(format!(
                    "it has not been healthy for {}, and what the image before it has reached can be reached: \
                     {problem}",
                    minutes(ill)
                )),
                (Before::Healthy, Ok(())) => {
                    Verdict::Unknown(format!("it is not healthy yet: {problem}"))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(900);

    fn ill(network: Result<(), &str>) -> Seen {
        Seen::Unhealthy {
            problem: "no credentials".to_owned(),
            network: network.map_err(str::to_owned),
        }
    }

    fn silent() -> Seen {
        Seen::Silent("it does not run".to_owned())
    }

    /// What is said after looks at these seconds.
    fn judged(before: Before, looks: &[(u64, Seen)]) -> Verdict {
        let mut trial = Trial::default();
        let mut verdict = Verdict::Unknown(String::new());
        for (second, seen) in looks {
            let now = BootTime::new(Duration::from_secs(*second));
            verdict = trial.judge(seen.clone(), before, LIMIT, now);
            if matches!(verdict, Verdict::Leaves(_)) {
                break;
            }
        }
        verdict
    }

    /// The same look each 10 s, from one second to another.
    fn each(from: u64, to: u64, seen: &Seen) -> Vec<(u64, Seen)> {
        let seconds = (from..=to).step_by(10);
        seconds.map(|second| (second, seen.clone())).collect()
    }

    fn leaves(before: Before, looks: &[(u64, Seen)]) -> bool {
        matches!(judged(before, looks), Verdict::Leaves(_))
    }

    #[test]
    fn health_is_the_only_proof() {
        for before in [Before::Healthy, Before::Ailing, Before::Unknown] {
            assert!(matches!(
                judged(before, &[(20, Seen::Healthy)]),
                Verdict::Stays(_)
            ));
        }
        let mut late = each(20, 910, &ill(Ok(())));
        late.push((915, Seen::Healthy));
        assert!(matches!(judged(Before::Healthy, &late), Verdict::Stays(_)));
    }

    #[test]
    fn a_daemon_that_does_not_run_is_the_images_fault_wherever_the_network_is() {
        let looks = each(20, 920, &silent());
        assert!(leaves(Before::Healthy, &looks));
        assert!(leaves(Before::Ailing, &looks));
        assert!(
            !leaves(Before::Unknown, &looks),
            "there is nothing to go back to"
        );
        assert!(
            !leaves(Before::Healthy, &looks[..90]),
            "the time is not over"
        );
        // One that is restarted once, hours later, is no dead one.
        let mut once = each(20, 7200, &ill(Err("no route")));
        once.push((7210, silent()));
        assert!(!leaves(Before::Healthy, &once));
    }

    #[test]
    fn a_network_that_is_away_is_not_the_images_fault_and_does_not_count() {
        let mut looks = each(20, 7200, &ill(Err("no route")));
        assert!(!leaves(Before::Healthy, &looks));
        looks.extend(each(7210, 8100, &ill(Ok(()))));
        assert!(
            !leaves(Before::Healthy, &looks),
            "it has the whole time with a network"
        );
        looks.extend(each(8110, 8110, &ill(Ok(()))));
        assert!(leaves(Before::Healthy, &looks));
        // A link that is there for moments gives no image its time.
        let mut moments = Vec::new();
        for minute in 0..600 {
            let begin = 20 + minute * 60;
            moments.extend(each(begin, begin + 20, &ill(Ok(()))));
            moments.extend(each(begin + 30, begin + 50, &ill(Err("no route"))));
        }
        assert!(!leaves(Before::Healthy, &moments));
        // One that is lost now and then does.
        let mut redials = Vec::new();
        for turn in 0..4 {
            let begin = 20 + turn * 600;
            redials.extend(each(begin, begin + 560, &ill(Ok(()))));
            redials.extend(each(begin + 570, begin + 590, &ill(Err("no route"))));
        }
        assert!(leaves(Before::Healthy, &redials));
    }

    #[test]
    fn nobody_asks_more_of_it_than_the_image_before_it_could_do() {
        let looks = each(20, 7200, &ill(Ok(())));
        assert!(leaves(Before::Healthy, &looks));
        assert!(!leaves(Before::Ailing, &looks));
        assert!(!leaves(Before::Unknown, &looks));
    }

    #[test]
    fn what_nobody_looked_at_is_not_counted() {
        let seldom = [(20, ill(Ok(()))), (2000, ill(Ok(()))), (2010, ill(Ok(())))];
        assert!(!leaves(Before::Healthy, &seldom));
        let retried: Vec<_> = (0..17).map(|turn| (20 + turn * 60, ill(Ok(())))).collect();
        assert!(
            leaves(Before::Healthy, &retried),
            "an update client asks each minute"
        );
    }
}
