//! A verify: a process that restores the replica aside, and compares it with the database.
//!
//! Owns how long one takes, and how it ends in each weather. Never decides when one begins; what a restore
//! gives is `bucket`'s and `replica`'s.

use edgerepl::agent::{Event, NotVerified, Verified};

use super::{Coming, HOUR, MINUTE, World, id};
use crate::coverage::Happening;
use crate::faults::Fault;

impl World {
    /// It takes as long as a download at idle priority, or hangs.
    pub(super) fn start_verify(&mut self, number: usize) {
        let process = self.new_process();
        // It restores at its beginning, or at its end.
        let is_early = self.chance.one_in(2);
        let database = &mut self.databases[number];
        database.verify = Some(process);
        database.verify_differs = is_early && database.gives_other_bytes();
        if self.strikes(Fault::Bucket, 30) {
            return self.coverage.happened(Happening::VerifyHung);
        }
        let wait = self.chance.scale(MINUTE, 5 * HOUR);
        self.expect(Coming::VerifyEnds(process), wait);
    }

    pub(super) fn end_verify(&mut self, process: u64) {
        let Some(number) = self.number_of(|database| &mut database.verify, process) else {
            return;
        };
        let found = self.compare(number);
        self.tell(Event::Verified(id(number), found));
    }

    fn compare(&mut self, number: usize) -> Result<Verified, NotVerified> {
        if self.weather.is_metered {
            return Err(NotVerified::Metered("wwan0".to_owned()));
        }
        let failed = |why: &str| Err(NotVerified::Failed(why.to_owned()));
        if !self.weather.disk || self.strikes(Fault::Disk, 20) {
            return failed("there is no room for a copy");
        }
        let database = &self.databases[number];
        if !database.there {
            return failed("the database is missing");
        }
        let is_served = self.litestream.up && database.is_served && self.can_replicate(number);
        let is_reached = self.reaches_bucket(self.cloud.granted_until);
        if !is_served || !is_reached || database.bucket.refuses_lists {
            return failed("S3 is away");
        }
        let is_named = database.bucket.is_readable();
        Ok(Verified {
            holds: !database.verify_differs && !database.gives_other_bytes(),
            transaction: is_named.then_some(database.replica.newest()),
        })
    }
}
