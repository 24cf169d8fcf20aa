//! `cargo xtask demo`: the main job, on real parts, as one watches.
//!
//! Two devices side by side: the Litestream of one asks for new credentials by itself (refresh), that of
//! the other is restarted with them (restart). Real Litestream replicates two real SQLite databases, ten
//! rows a second each, to an S3 server that refuses each session from the second it ends, through six
//! rotations, with the private key in a PKCS#11 token. One of the two an application writes that knows
//! nothing of edgerepl. One file configures all, with a second as the RPO. Then each replica is restored,
//! every row is compared, and a table tells what each way has cost.

use std::thread;
use std::time::{Duration, Instant};

use edgerepl_lab::{Lab, LabOptions};
use edgerepl_tools as tools;
use xtask::{Outcome, setup};

mod application;
mod screen;
mod way;

use screen::Screen;
use way::{DATABASES, Figures, Way};

/// How often the screen is brought up to date.
const GLANCE: Duration = Duration::from_millis(200);

/// How long things take.
pub(crate) struct Pace {
    /// A row of edgerepl's comes so often.
    heartbeat: &'static str,
    lifetime: Duration,
    rotations: u64,
    /// It goes on at least so long,
    least: Duration,
    /// and by then something is wrong.
    most: Duration,
}

impl Pace {
    /// Six rotations in a minute and a half.
    pub(crate) const SHORT: Self = Self {
        heartbeat: "100ms",
        lifetime: Duration::from_secs(20),
        rotations: 6,
        least: Duration::ZERO,
        most: Duration::from_secs(115),
    };

    /// As on a device: a row each 5 s, AWS's shortest session, renewed 5 min ahead, for 65 min.
    pub(crate) const REAL: Self = Self {
        heartbeat: "5s",
        lifetime: Duration::from_secs(900),
        rotations: 6,
        least: Duration::from_secs(65 * 60),
        most: Duration::from_secs(70 * 60),
    };
}

/// Runs it; true where each replica holds exactly what its database holds, edgerepl has watched both, and
/// refresh restarted nothing.
pub(crate) fn demo(pace: &Pace) -> Outcome {
    setup::setup()?;
    let program = tools::edgerepl()?;

    println!("The lab: a credential provider with mutual TLS, S3 that refuses ended sessions.");
    let lab = Lab::start(LabOptions {
        lifetime: pace.lifetime,
        ..LabOptions::default()
    })?;
    println!("Two devices: a P-256 key each, made in a SoftHSM token, which it never leaves.");
    println!(
        "Credentials live for {} s. edgerepl runs Litestream {}, which replicates two\n\
         databases of each by one file: {}, to which edgerepl writes a row each {}, and\n\
         {}, to which an application that knows nothing of edgerepl writes ten rows a second.\n",
        pace.lifetime.as_secs(),
        setup::LITESTREAM,
        DATABASES[0],
        pace.heartbeat,
        DATABASES[1],
    );
    let mut screen = Screen::new();
    let mut ways = [
        Way::start("refresh", &lab, &program, pace.heartbeat)?,
        Way::start("restart", &lab, &program, pace.heartbeat)?,
    ];
    watch(&mut ways, pace, &mut screen)?;
    screen.say("SIGTERM to edgerepl, which lets Litestream sync once more; then each");
    screen.say("replica is restored with `litestream restore`, and every row compared");
    let [refresh, restart] = ways.map(Way::end);
    let (refresh, restart) = (refresh?, restart?);

    print_table(&refresh, &restart);
    let rotated = refresh.rotations.min(restart.rotations) >= pace.rotations;
    let kept_all = refresh.kept_all() && restart.kept_all();
    let cost_nothing = refresh.starts == 1 && refresh.refused == 0;
    let equal = rotated && kept_all && cost_nothing;
    println!(
        "\n{}",
        match equal {
            true => "EQUAL: no row of any database was lost, and refresh restarted nothing",
            false => "NOT EQUAL",
        }
    );
    Ok(equal)
}

/// Shows what happens until there were rotations enough.
fn watch(ways: &mut [Way<'_>; 2], pace: &Pace, screen: &mut Screen) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        for way in &mut *ways {
            if let Some(news) = way.look() {
                screen.say(&news);
            }
        }
        let [refresh, restart] = ways.each_ref().map(Way::line);
        screen.glance(&[way::heading(), refresh, restart]);
        let enough = ways.iter().all(|way| way.has_rotated(pace.rotations));
        if enough && begun.elapsed() >= pace.least {
            return Ok(());
        }
        if begun.elapsed() >= pace.most {
            let logs = ways.each_ref().map(Way::log).join("\n");
            return Err(format!("this takes too long; the logs say:\n{logs}"));
        }
        thread::sleep(GLANCE);
    }
}

fn print_table(refresh: &Figures, restart: &Figures) {
    println!("\n{:<34}{:>12}{:>12}", "", "refresh", "restart");
    let row = |name: &str, value: &dyn Fn(&Figures) -> String| {
        println!("{name:<34}{:>12}{:>12}", value(refresh), value(restart));
    };
    row("rotations", &|way| way.rotations.to_string());
    row("Litestream's starts", &|way| way.starts.to_string());
    row("sessions granted", &|way| way.sessions.to_string());
    row("requests refused by S3", &|way| way.refused.to_string());
    row("longest time without an upload", &|way| {
        seconds(Some(way.silence))
    });
    row("gap of a restart, median", &|way| seconds(way.median_gap()));
    row("gap of a restart, maximum", &|way| {
        seconds(way.gaps.last().copied())
    });
    row("databases that edgerepl proved", &|way| {
        way.proved.to_string()
    });
    for (n, name) in DATABASES.iter().enumerate() {
        row(&format!("{name}: integrity_check"), &|way| {
            way.comparisons[n].integrity.clone()
        });
        row(&format!("{name}: rows, live"), &|way| {
            way.comparisons[n].live.to_string()
        });
        row(&format!("{name}: rows in the replica"), &|way| {
            way.comparisons[n].restored.to_string()
        });
        row(&format!("{name}: rows that differ"), &|way| {
            way.comparisons[n].different.to_string()
        });
    }
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("none".to_owned(), |time| {
        format!("{:.2} s", time.as_secs_f32())
    })
}
