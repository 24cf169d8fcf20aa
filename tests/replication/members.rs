//! Who is given credentials over the socket: edgerepl's user, root, and the members of its group, by
//! whichever of their groups; nobody else, also where the socket was opened to all.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use edgerepl_lab::tools;
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};

use crate::support::{Result, site, wait_until};

/// Numbers that no system gives away.
const USER: &str = "61234";
const GROUP: &str = "61235";
const STRANGER: &str = "61236";

#[test]
fn members_of_the_group_are_given_credentials_by_whichever_of_their_groups() -> Result {
    if !Uid::effective().is_root() {
        println!("skipped: only root can become other users");
        return Ok(());
    }
    let (lab, site) = site("thing-members", Duration::from_secs(900))?;
    site.write_config()?;
    let program = lab.root().join("edgerepl");
    fs::copy(tools::edgerepl()?, &program)?;
    let runtime = site.runtime_file("");
    for folder in [lab.root(), &runtime] {
        let owner = format!("{USER}:{GROUP}");
        let given = Command::new("chown")
            .args(["-R", &owner])
            .arg(folder)
            .status()?;
        assert!(given.success());
        fs::set_permissions(folder, Permissions::from_mode(0o755))?;
    }
    fs::set_permissions(&runtime, Permissions::from_mode(0o750))?;

    let run = site.command(&["run"]);
    let _daemon = Ended(
        Command::new("setpriv")
            .args(["--reuid", USER, "--regid", GROUP, "--clear-groups"])
            .arg(&program)
            .args(run.get_args())
            .env_clear()
            .envs(
                run.get_envs()
                    .filter_map(|(name, value)| Some((name, value?))),
            )
            .stdin(Stdio::null())
            .stderr(fs::File::create(site.root().join("log"))?)
            .spawn()?,
    );
    let socket = site.runtime_file("credentials.sock");
    wait_until("credentials", || {
        asked(&socket, USER, GROUP, None).contains("SessionToken")
    })?;
    let member = asked(&socket, STRANGER, STRANGER, Some(GROUP));
    assert!(member.contains("SessionToken"), "a member got {member:?}");
    let member = asked(&socket, STRANGER, GROUP, None);
    assert!(member.contains("SessionToken"), "a member got {member:?}");
    let stranger = asked(&socket, STRANGER, STRANGER, None);
    assert!(
        stranger.contains("refused: Permission denied"),
        "got {stranger:?}"
    );

    // Somebody opens the door: it is looked at who asks then.
    fs::set_permissions(&runtime, Permissions::from_mode(0o755))?;
    fs::set_permissions(&socket, Permissions::from_mode(0o666))?;
    let stranger = asked(&socket, STRANGER, STRANGER, None);
    assert!(stranger.contains("nor in its group"), "got {stranger:?}");
    assert!(!stranger.contains("SessionToken"));
    let member = asked(&socket, STRANGER, STRANGER, Some(GROUP));
    assert!(member.contains("SessionToken"), "a member got {member:?}");
    Ok(())
}

/// A daemon of another user's, ended with its test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

/// What a user with these groups is answered at `socket`.
fn asked(socket: &Path, user: &str, group: &str, supplementary: Option<&str>) -> String {
    const ASK: &str =
        "my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die \"refused: $!\"; print <$s>";
    let groups = supplementary.map_or("--clear-groups".to_owned(), |g| format!("--groups={g}"));
    let output = Command::new("setpriv")
        .args(["--reuid", user, "--regid", group, &groups])
        .args(["/usr/bin/perl", "-MIO::Socket::UNIX", "-e", ASK])
        .arg(socket)
        .output();
    match output {
        Ok(output) => [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat(),
        Err(e) => e.to_string(),
    }
}
