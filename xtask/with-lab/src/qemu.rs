//! `cargo xtask qemu`: the image in an emulated machine, with the lab on the host.
//!
//! `cargo xtask qemu update` is the same for the image with two slots. Owns which tests run and how their
//! outcome is shown. A test is a story about one device that is switched on, used and looked at; it says
//! nothing of how a machine is made.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use edgerepl_lab::I2cBus;
use edgerepl_tools::root;
use xtask::Outcome;
use xtask::image::slots::Slots;
use xtask::image::{self, Door, Image};
use xtask::setup::{self, ACCEPT, LicenceAccepted};
use xtask::target::{self, Target};

mod application;
mod machine;
mod rig;
mod shell;
mod slots;
mod stories;
mod stranger;

use rig::Rig;
use stories::{STORIES, UPDATES};

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
    slots: Option<Slots>,
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

    /// What updates of a device with slots are made from.
    pub(crate) fn slots(&self) -> Result<&Slots, Failure> {
        Ok(self.slots.as_ref().ok_or("the image has no slots")?)
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
    fn named(names: Vec<&'a str>, of: &[Story]) -> Result<Self, String> {
        if let Some(unknown) = names.iter().find(|n| of.iter().all(|s| s.name != **n)) {
            let known: Vec<&str> = of.iter().map(|story| story.name).collect();
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
    if let ["update", arguments @ ..] = arguments {
        return update(arguments);
    }
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
        Choice::named(names, STORIES)?
    };
    let licensed = choice.licensed();
    let licence = (licensed.is_some() || arguments.contains(&ACCEPT))
        .then(|| LicenceAccepted::among(arguments))
        .flatten();
    if let (Some(name), None) = (licensed, licence) {
        return Err(format!("accept it with `cargo xtask qemu {name} {ACCEPT}`").into());
    }
    setup::setup()?;
    setup::qemu()?;
    let image = match file {
        Some(file) => image::built_elsewhere(target, file)?,
        None => image::build(target)?,
    };
    let bench = Bench {
        image,
        folder: folder(target),
        licence,
        slots: None,
    };
    run(&bench, STORIES, &choice)
}

/// `[--arch ARCHITECTURE] [TEST…]`: the tests of updates, all or these, with our image that has slots.
fn update(arguments: &[&str]) -> Outcome {
    let (target, names) = match arguments {
        ["--arch", arch, names @ ..] => (target::named(arch)?, names),
        names => (&target::AARCH64, names),
    };
    let choice = match names {
        [] => Choice::All,
        names => Choice::named(names.to_vec(), UPDATES)?,
    };
    setup::setup()?;
    setup::qemu()?;
    let slots = image::slots::build(target)?;
    let bench = Bench {
        image: slots.image.clone(),
        folder: folder(target),
        licence: None,
        slots: Some(slots),
    };
    run(&bench, UPDATES, &choice)
}

/// Where the tests' devices are kept.
fn folder(target: &Target) -> PathBuf {
    root().join("target/qemu").join(target.arch)
}

fn run(bench: &Bench, stories: &[Story], choice: &Choice) -> Outcome {
    let target = bench.image.arch;
    if !bench.has_litestream() {
        let arch = target.arch;
        println!("For {arch} no Litestream is to be had here: shown is all up to its start.");
    }
    fs::create_dir_all(&bench.folder)?;
    let chosen = stories
        .iter()
        .filter(|story| choice.includes(story, bench.licence.is_some()))
        .filter(|story| bench.has_litestream() || story.on_armv7);
    let (mut passed, mut failed) = (0, 0);
    for story in chosen {
        println!("\n{}: {}", story.name, story.shows);
        let begun = Instant::now();
        let outcome = (story.run)(bench);
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
