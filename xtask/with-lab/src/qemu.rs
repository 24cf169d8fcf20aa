//! `cargo xtask qemu`: the image in an emulated machine, with the lab on the host.
//!
//! Owns which tests run and how their outcome is shown. A test is a story about one device that is
//! switched on, used and looked at; it says nothing of how a machine is made.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edgerepl_lab::I2cBus;
use edgerepl_tools::root;
use xtask::Outcome;
use xtask::image::{self, Door, Image};
use xtask::setup::{self, ACCEPT, LicenceAccepted};
use xtask::target::{self, Target};

mod application;
mod machine;
mod rig;
mod shell;
mod stories;
mod stranger;

use rig::Rig;
use stories::STORIES;

/// Why a test failed.
pub(crate) type Failure = Box<dyn Error>;

/// What a test measured: a name and a figure for people.
pub(crate) type Figures = Vec<(&'static str, String)>;

/// A test.
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) shows: &'static str,
    /// It is one of the few that the gate runs.
    pub(crate) in_gate: bool,
    /// It needs no Litestream, which is not to be had for armv7.
    pub(crate) on_armv7: bool,
    /// It needs Microchip's module, for whose licence somebody has to answer.
    pub(crate) licensed: bool,
    pub(crate) run: fn(&Bench) -> Result<Figures, Failure>,
}

/// Where a test finds its machine.
pub(crate) struct Bench {
    pub(crate) image: Image,
    folder: PathBuf,
    licence: Option<LicenceAccepted>,
}

impl Bench {
    /// A device of its own for the story of that name.
    pub(crate) fn rig(&self, name: &str, lifetime: Duration) -> Result<Rig<'_>, Failure> {
        Rig::new(&self.image, &self.folder.join(name), lifetime)
    }

    /// A device whose key is in a simulated ATECC608, and the bus that the chip is on.
    pub(crate) fn rig_with_chip(
        &self,
        name: &str,
        lifetime: Duration,
    ) -> Result<(Rig<'_>, I2cBus), Failure> {
        let accepted = self.licence.ok_or("nobody accepted the module's licence")?;
        let there = Path::new(rig::MODULE_FOLDER);
        let module = setup::cryptoauthlib_for(self.image.arch, there, accepted)?;
        Rig::with_chip(&self.image, &self.folder.join(name), lifetime, &module)
    }

    pub(crate) fn has_litestream(&self) -> bool {
        self.image.arch == &target::AARCH64 || self.image.door == Door::Console
    }
}

/// Which tests are to run.
enum Choice<'a> {
    Gate,
    All,
    Named(Vec<&'a str>),
}

impl<'a> Choice<'a> {
    fn named(names: Vec<&'a str>) -> Result<Self, String> {
        if let Some(unknown) = names.iter().find(|n| STORIES.iter().all(|s| s.name != **n)) {
            let known: Vec<&str> = STORIES.iter().map(|story| story.name).collect();
            let known = known.join(", ");
            return Err(format!("there is no test {unknown:?}; there are {known}"));
        }
        Ok(if names.is_empty() {
            Self::Gate
        } else {
            Self::Named(names)
        })
    }

    /// `licensed`: somebody accepted the licence of Microchip's module.
    fn includes(&self, story: &Story, licensed: bool) -> bool {
        match self {
            Self::Gate => story.in_gate,
            Self::All => licensed || !story.licensed,
            Self::Named(names) => names.contains(&story.name),
        }
    }

    /// Of the tests that were named, one that needs Microchip's module.
    fn licensed(&self) -> Option<&'static str> {
        let mut named = STORIES.iter().filter(|story| match self {
            Self::Named(names) => names.contains(&story.name),
            _ => false,
        });
        named.find(|story| story.licensed).map(|story| story.name)
    }
}

/// `[--arch ARCHITECTURE] [--image FILE] [--all | TEST…]`, and a word on a licence: without more the few of the gate, on
/// aarch64, with our own image. True where all passed.
pub(crate) fn qemu(arguments: &[&str]) -> Outcome {
    let mut target = &target::AARCH64;
    let (mut all, mut names, mut file) = (false, Vec::new(), None);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match *word {
            "--arch" => target = target::named(words.next().ok_or("--arch needs a name")?)?,
            "--all" => all = true,
            ACCEPT => {}
            "--image" => file = Some(Path::new(words.next().ok_or("--image needs a file")?)),
            name => names.push(name),
        }
    }
    let choice = if all {
        Choice::All
    } else {
        Choice::named(names)?
    };
    let licensed = choice.licensed();
    let licence = (licensed.is_some() || arguments.contains(&ACCEPT))
        .then(|| LicenceAccepted::among(arguments))
        .flatten();
    if let (Some(name), None) = (licensed, licence) {
        return Err(format!("accept it with `cargo xtask qemu {name} {ACCEPT}`").into());
    }
    run(target, file, &choice, licence)
}

fn run(
    target: &'static Target,
    file: Option<&Path>,
    choice: &Choice,
    licence: Option<LicenceAccepted>,
) -> Outcome {
    setup::setup()?;
    setup::qemu()?;
    let image = match file {
        Some(file) => image::built_elsewhere(target, file)?,
        None => image::build(target)?,
    };
    let bench = Bench {
        image,
        folder: root().join("target/qemu").join(target.arch),
        licence,
    };
    if !bench.has_litestream() {
        let arch = target.arch;
        println!("For {arch} no Litestream is to be had here: shown is all up to its start.");
    }
    fs::create_dir_all(&bench.folder)?;
    let chosen = STORIES
        .iter()
        .filter(|story| choice.includes(story, licence.is_some()))
        .filter(|story| bench.has_litestream() || story.on_armv7);
    let (mut passed, mut failed) = (0, 0);
    for story in chosen {
        println!("\n{}: {}", story.name, story.shows);
        let begun = Instant::now();
        let outcome = (story.run)(&bench);
        let seconds = begun.elapsed().as_secs();
        match outcome {
            Ok(figures) => {
                passed += 1;
                for (name, figure) in figures {
                    println!("  {name:<34} {figure}");
                }
                println!("pass  {} ({seconds} s)", story.name);
            }
            Err(failure) => {
                failed += 1;
                println!("FAIL  {} ({seconds} s): {failure}", story.name);
            }
        }
    }
    println!("\n{}: {passed} passed, {failed} failed", target.arch);
    Ok(failed == 0 && passed > 0)
}
