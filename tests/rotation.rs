//! Six rotations on real parts: no row is lost, and Litestream takes no new snapshot.

use std::time::Duration;

use edgerepl_lab::{KeyKind, Lab, LabOptions, Site};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn child_with_a_token_key() -> Outcome {
    let lab = Lab::start(LabOptions {
        lifetime: Duration::from_secs(9),
        ..LabOptions::default()
    })?;
    let device = lab.provision_token(KeyKind::EcdsaP256, "thing-child")?;
    let site = Site::new(&lab, device, env!("CARGO_BIN_EXE_edgerepl"))?;
    let mut daemon = site.start()?;
    daemon.wait_for_rotations(6, LIMIT)?;
    println!("{}", daemon.log());
    let status = daemon.terminate()?;
    assert!(status.success(), "{status}");
    let comparison = site.compare(&lab)?;
    assert!(comparison.is_equal(), "{comparison:?}");
    println!("{comparison:?}");
    Ok(())
}
