//! The tests: what a device lives through, and what must hold afterwards.
//!
//! Owns the list of them; each is told in a room of its kind.

use std::time::Duration;

use super::{Bench, Failure, Figures, Story};

mod everyday;
mod evidence;
mod fetched;
mod interrupted;
mod lost_data;
mod neighbours;
mod secure_element;
mod storage;
mod surroundings;
mod trials;
mod updates;
mod watchdogs;

/// Credentials that outlive a test.
const LONG: Duration = Duration::from_secs(900);

/// Credentials that are renewed every 20 s: what an hour brings, in two minutes.
const SHORT: Duration = Duration::from_secs(30);

/// What the large database of a device's application has.
const LARGE_MIB: u32 = 200;

/// Those with the image that has slots.
pub(crate) const UPDATES: &[Story] = &[
    Story {
        name: "good-update",
        shows: "a signed bundle goes into the other slot, which comes up, replicates and is kept",
        in_gate: false,
        on_armv7: true,
        licensed: false,
        run: updates::good_update,
    },
    Story {
        name: "refused-bundles",
        shows: "a stranger's bundle, another machine's and an older one change nothing",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: updates::refused_bundles,
    },
    Story {
        name: "torn-environment",
        shows: "a write to the boot loader's memory that was broken off does not change the slot",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: updates::torn_environment,
    },
    Story {
        name: "kernel-panic",
        shows: "a new slot whose kernel panics is tried three times, then the old one is back",
        in_gate: false,
        on_armv7: true,
        licensed: false,
        run: updates::kernel_panic,
    },
    Story {
        name: "cut-install",
        shows: "five power cuts while the other slot is written: the old one stays",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: interrupted::cut_install,
    },
    Story {
        name: "cut-first-boot",
        shows: "two power cuts at the new slot's first boots: it comes up and is kept",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: interrupted::cut_first_boot,
    },
    Story {
        name: "crash",
        shows: "a new slot whose daemon crashes goes by itself, after three attempts",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: trials::crash,
    },
    Story {
        name: "broken-program",
        shows: "a new slot whose program can't run at all goes by itself, too",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: trials::broken_program,
    },
    Story {
        name: "wrong-endpoint",
        shows: "a new slot that is configured wrongly goes by itself",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: trials::wrong_endpoint,
    },
    Story {
        name: "no-network",
        shows: "a new slot without a network stays, and is good once there is one",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: trials::no_network,
    },
    Story {
        name: "update-in-rotation",
        shows: "a reboot into the new slot in the midst of a rotation",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: interrupted::rotation,
    },
    Story {
        name: "https",
        shows: "a bundle that the device fetches by mutual TLS, with the key in its token",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: fetched::over_https,
    },
];

pub(crate) const STORIES: &[Story] = &[
    Story {
        name: "boot",
        shows: "from power to the first replicated row, on a root that is read-only",
        in_gate: true,
        on_armv7: true,
        licensed: false,
        run: everyday::boot,
    },
    Story {
        name: "rotations",
        shows: "six rotations, and the replicas of three databases hold every row",
        in_gate: true,
        on_armv7: true,
        licensed: false,
        run: everyday::rotations,
    },
    Story {
        name: "watchdog",
        shows: "a daemon that stands still is killed, a stuck child is not its death",
        in_gate: true,
        on_armv7: false,
        licensed: false,
        run: watchdogs::watchdog,
    },
    Story {
        name: "hardware-watchdog",
        shows: "systemd feeds the hardware's watchdog, which resets a machine without it",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: watchdogs::hardware_watchdog,
    },
    Story {
        name: "flash",
        shows: "an hour's work writes to /data alone, and never a secret",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: storage::flash,
    },
    Story {
        name: "power-cuts",
        shows: "twenty power cuts lose no committed row of three databases, one of them large",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: storage::power_cuts,
    },
    Story {
        name: "no-clock",
        shows: "a clock that is not set, then set, then steps both ways",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: surroundings::no_clock,
    },
    Story {
        name: "network",
        shows: "no network at boot, for longer than credentials live, and one that flaps",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: surroundings::network,
    },
    Story {
        name: "systemd-supervisor",
        shows: "Litestream in a unit, which asks edgerepl; then restarted for it by the path unit",
        in_gate: true,
        on_armv7: false,
        licensed: false,
        run: neighbours::systemd_supervisor,
    },
    Story {
        name: "token-trouble",
        shows: "a PKCS#11 module that is missing, then one that hangs; a PIN as a credential",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: neighbours::token_trouble,
    },
    Story {
        name: "late-data",
        shows: "a data partition that is not there at the start, and is mounted later",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: storage::late_data,
    },
    Story {
        name: "lost-data",
        shows: "a data partition that was lost, twice: three databases are back before the next row",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: lost_data::lost_data,
    },
    Story {
        name: "stop-and-reboot",
        shows: "a stop in time with the last row replicated, and a clean reboot",
        in_gate: false,
        on_armv7: false,
        licensed: false,
        run: everyday::stop_and_reboot,
    },
    Story {
        name: "footprint",
        shows: "what the idle daemon costs",
        in_gate: false,
        on_armv7: true,
        licensed: false,
        run: everyday::footprint,
    },
    Story {
        name: "secure-element",
        shows: "Microchip's module on a bus of the device's kernel: faults, and a chip pulled out",
        in_gate: false,
        on_armv7: true,
        licensed: true,
        run: secure_element::secure_element,
    },
];
