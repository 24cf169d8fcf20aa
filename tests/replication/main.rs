//! What is promised of replication, shown with the real edgerepl, the real Litestream and an S3 that
//! refuses a session from the second it ends.
//!
//! After whatever a test does to them, the restored replica holds every row of the live database, and
//! Litestream has uploaded the whole of it once, at the beginning. One file for each kind of trouble:
//! none (`rotation`, `refresh`), Litestream's own (`litestream`), S3's (`s3`), the database's and its disk's
//! (`store`), an application that checkpoints (`wal_guard`) or is killed (`writer`), edgerepl's death
//! (`crash`), its end (`shutdown`), an upload that somebody asks for (`sync`) and those that wait (`metered`), what
//! people wrap Litestream into (`wrapper`), what it is led by (`configured`), a line on which an upload takes long
//! (`slow_line`), how many databases there are (`several`) and what
//! becomes of the others where one is hurt (`wounds`), who is given credentials (`members`), a database
//! that isn't there (`missing`), what becomes of the bucket's objects (`restorable`, `verified`).

mod configured;
mod crash;
mod late_reset;
mod litestream;
mod members;
mod metered;
mod missing;
mod one_file;
mod refresh;
mod restorable;
mod rotation;
mod s3;
mod several;
mod shutdown;
mod slow_line;
mod store;
mod support;
mod sync;
mod unit;
mod verified;
mod wal_guard;
mod wounds;
mod wrapper;
mod writer;
