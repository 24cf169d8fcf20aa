//! AWS's own clients with `credential_process`: the daemon's credentials, over rotations.

mod common;

use std::process::{Command, Output};

use common::{LIMIT, Outcome, granted, lab, replicates, site};
use edgerepl_lab::{Daemon, KeyKind, Lab, Site, tools};

/// Lists the bucket until it has done so with four sets of credentials, and says which.
const LISTING: &str = r#"
import sys, time, boto3, botocore.config
session = boto3.Session()
path = botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1})
s3 = session.client("s3", endpoint_url=sys.argv[1], config=path)
used = []
while len(used) < 4:
    found = s3.list_objects_v2(Bucket=sys.argv[2])["KeyCount"]
    assert found > 0, "the bucket is empty"
    key = session.get_credentials().get_frozen_credentials().access_key
    if key not in used:
        used.append(key)
        print(key, flush=True)
    time.sleep(0.3)
"#;

#[test]
fn boto3_lists_a_bucket_over_three_rotations() -> Outcome {
    let (lab, site, daemon) = replicating("boto3")?;
    let mut python = client(&site, "python")?;
    python.args(["-c", LISTING, &lab.s3().endpoint(), lab.s3().bucket()]);
    let listed = said(&python.output()?)?;
    let used: Vec<&str> = listed.lines().collect();
    let issued = lab.provider().issued();
    assert_eq!(used.len(), 4, "{listed}");
    for key in used {
        assert!(issued.iter().any(|session| session.access_key_id == key));
    }
    nothing_was_refused(&lab);
    daemon.terminate()?;
    Ok(())
}

#[test]
fn the_aws_cli_lists_a_bucket_over_three_rotations() -> Outcome {
    let (lab, site, mut daemon) = replicating("aws-cli")?;
    for rotation in 1..=4 {
        daemon.wait_for("a rotation", LIMIT, |status| granted(status) >= rotation)?;
        let mut aws = client(&site, "aws")?;
        aws.args(["--endpoint-url", &lab.s3().endpoint()]);
        aws.args(["s3api", "list-objects-v2", "--bucket", lab.s3().bucket()]);
        let listed = said(&aws.output()?)?;
        assert!(listed.contains("aws-cli/app.db"), "{listed}");
    }
    nothing_was_refused(&lab);
    daemon.terminate()?;
    Ok(())
}

/// A device whose Litestream asks for its credentials too, and which rotates each 6 s.
fn replicating(thing_name: &str) -> Outcome<(Lab, Site, Daemon)> {
    let lab = lab(9)?;
    let device = lab.provision_pem(KeyKind::EcdsaP256, thing_name)?;
    let mut site = site(&lab, &device)?;
    site.set("replication", "rotation", "\"refresh\"");
    let mut daemon = site.start()?;
    daemon.wait_for("replication", LIMIT, replicates)?;
    Ok((lab, site, daemon))
}

/// A client of AWS's, pointed to edgerepl and to nothing else.
fn client(site: &Site, program: &str) -> Outcome<Command> {
    let mut command = Command::new(tools::aws_sdk(program)?);
    command
        .env("AWS_CONFIG_FILE", site.runtime_file("aws-config"))
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    Ok(command)
}

fn said(output: &Output) -> Outcome<String> {
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{failed}");
    Ok(String::from_utf8(output.stdout.clone())?)
}

fn nothing_was_refused(lab: &Lab) {
    let requests = lab.s3().requests();
    let refused: Vec<_> = requests.iter().filter(|r| r.error.is_some()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    assert!(requests.len() > 4);
}
