//! What a plan costs: the lists that S3 is asked for.

use super::{FIRST, NO_COMPACTION, ONE_SNAPSHOT, ROW, is_restorable, plans, prepared};
use crate::support::{Application, LIMIT, Result, tune_litestream};

/// One for each level of Litestream's, and two more.
const MOST: usize = 12;

/// So many are counted.
const PLANS: u32 = 5;

#[test]
fn a_plan_costs_twelve_lists_at_most() -> Result {
    let (lab, site) = prepared("restorable-cost", "refresh")?;
    tune_litestream(&site, ONE_SNAPSHOT)?;
    // Whoever lists then is edgerepl.
    tune_litestream(&site, NO_COMPACTION)?;
    let _application = Application::writing(&site, ROW)?;
    let mut daemon = site.start()?;
    daemon.wait_for("health", LIMIT, |status| {
        status["state"] == "healthy" && is_restorable(status, FIRST)
    })?;
    let lists = || {
        let requests = lab.s3().requests();
        requests.iter().filter(|r| r.is_list()).count()
    };
    // The next plan has ended, and none has begun.
    plans(&mut daemon, FIRST, 1, |_| true)?;
    let before = lists();
    plans(&mut daemon, FIRST, PLANS, |_| true)?;
    let each = (lists() - before).div_ceil(usize::try_from(PLANS)?);
    println!("a plan costs {each} LIST requests");
    assert!((1..=MOST).contains(&each), "{each}");
    assert!(daemon.terminate()?.success());
    Ok(())
}
