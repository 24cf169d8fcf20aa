//! Litestream, and all work for it outside the loop.
//!
//! Owns the running Litestream (`family`), the requests to it, the chores, and the configuration that
//! it read at its start: an edit applies from the next start on. Each of the agent's actions is a
//! method, which returns an event if the result is known at once. Decides nothing.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{info, warn};
use zeroize::Zeroizing;

use super::chore::{Chores, Errand, Look, Outcome, Step};
use super::context::Context;
use super::leftovers::Leftovers;
use super::notify;
use super::uploads::Uploads;
use super::{bucket, disk, verification};
use crate::agent::{Database, Event, Named, NotVerified, Sent};
use crate::clock::BootTime;
use crate::config::{Rotation, Supervisor};
use crate::credentials::delivery::{self, Variable};
use crate::litestream::answer::{Known, Position, Seam, SyncFailure};
use crate::litestream::bucket::Commands;
use crate::litestream::chain::{self, PlanFailure};
use crate::litestream::command::{self, Replicate};
use crate::litestream::config_file::{self, Configuration};
use crate::litestream::control::{Asked, Question, SyncRequest, Told};
use crate::litestream::restore::{Aside, VERIFY};
use crate::litestream::unit::{self, Restart};
use crate::litestream::uploads::Uploaded;
use crate::litestream::{leash, lineage};
use crate::store;
use crate::system::family::Seen;
use crate::system::file;
use crate::system::traffic::Traffic;

mod family;

use family::Family;

/// The precision of a process's start time in the kernel.
const CLOCK_TICK: Duration = Duration::from_millis(10);

#[derive(Debug, Default)]
pub(super) struct Litestream {
    family: Option<Family>,
    /// When its unit was last asked to restart, and the process that last answered for it.
    unit_restarted: BootTime,
    unit: Option<u32>,
    traffic: Traffic,
    /// Its configuration at the last start; `None` if it could not be read.
    read: Option<Configuration>,
    syncs: BTreeMap<Database, SyncRequest>,
    asked: Option<Asked>,
    chores: Chores,
    uploads: Uploads,
}

impl Litestream {
    /// The id of the process that was started.
    pub(super) fn id(&self) -> Option<u32> {
        self.family.as_ref().map(Family::id)
    }

    /// Where the replica of a database is, by the configuration that the last one has read.
    pub(super) fn replica(&self, database: Database, context: &Context) -> Option<String> {
        let path = context.paths.in_litestream(database);
        self.read.as_ref()?.place(path)
    }

    /// The servers that this device needs, as `host:port`: the credential provider, and the stores that the
    /// configuration which the last Litestream has read names.
    pub(super) fn endpoints(&self, context: &Context) -> Vec<String> {
        let settings = &context.settings;
        let mut servers = vec![settings.provider.endpoint.to_string()];
        let stores = self
            .read
            .iter()
            .flat_map(|read| read.stores(&settings.region));
        for store in stores {
            if !servers.contains(&store) {
                servers.push(store);
            }
        }
        servers
    }

    /// What was uploaded of a database since the daemon's start, as far as it is told.
    pub(super) fn uploaded(&self, database: Database, context: &Context) -> Option<Uploaded> {
        self.uploads.of(database, &context.paths)
    }

    /// All processes that were started here and are not collected yet.
    pub(super) fn ids(&self) -> impl Iterator<Item = u32> {
        self.id().into_iter().chain(self.chores.ids())
    }

    /// The descriptors to poll.
    pub(super) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let said = self.family.as_ref().and_then(Family::pipe);
        let asked = self.asked.as_ref().map(AsFd::as_fd);
        let syncs = self.syncs.values().map(AsFd::as_fd);
        let own = [said, asked].into_iter().flatten();
        own.chain(syncs).chain(self.chores.pipes())
    }

    /// When a turn is needed if nothing else happens.
    pub(super) fn deadline(&self) -> BootTime {
        self.family
            .as_ref()
            .map_or(BootTime::NEVER, Family::deadline)
    }

    /// What has happened. `own`: all children that this process started itself.
    pub(super) fn poll(
        &mut self,
        context: &mut Context,
        known: impl Fn(Database) -> Known,
        own: &[u32],
        leftovers: &mut Leftovers,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let ended = self
            .family
            .as_mut()
            .and_then(|family| family.poll(own, &context.secrets()));
        if let Some((uploads, are_told)) = self.family.as_mut().map(Family::uploads) {
            self.uploads.heard(uploads, are_told, &context.paths);
        }
        if self.family.as_mut().is_some_and(Family::complained) {
            events.push(Event::Complained);
        }
        if let Some(how) = ended {
            self.family = None;
            self.syncs.clear();
            self.chores
                .abandon(|errand| errand.examines().is_some(), leftovers);
            events.push(Event::Exited(how));
        }
        let ended = self.chores.poll(&context.secrets());
        for (errand, outcome) in ended {
            events.extend(self.came_of(errand, outcome, context));
        }
        let syncs = self.syncs.iter_mut();
        let answers: Vec<_> = syncs
            .filter_map(|(database, sync)| Some((*database, sync.poll()?)))
            .collect();
        for (database, answer) in answers {
            self.syncs.remove(&database);
            events.extend(match answer {
                Ok(position) => self.examine(database, position, known(database), context),
                Err(failure) => Some(Event::Synced(database, Err(failure))),
            });
        }
        if let Some(told) = self.asked.as_mut().and_then(Asked::poll) {
            self.asked = None;
            events.extend(match told {
                Told::Here => Some(Event::Greeted),
                Told::Replicates(listed) => {
                    let watches = listed
                        .iter()
                        .filter_map(|path| context.watch_of_litestream(path));
                    Some(Event::Listed(watches.collect()))
                }
                Told::Nothing => None,
            });
        }
        events
    }

    /// Reads its configuration, which applies to the next one that is started.
    pub(super) fn understand(&mut self, context: &mut Context) -> Option<Event> {
        let understood = context.litestream_config();
        let event = self.names_in(&understood, context);
        self.read = understood.ok();
        event
    }

    /// The same for what it names alone: the one that runs goes by what it has read.
    pub(super) fn names(&mut self, context: &mut Context) -> Option<Event> {
        self.names_in(&context.litestream_config(), context)
    }

    /// What a configuration names. Folders are looked through by a child: to close a database's file drops
    /// the locks that this process has on it.
    fn names_in(
        &mut self,
        understood: &Result<Configuration, String>,
        context: &mut Context,
    ) -> Option<Event> {
        let configuration = match understood {
            Ok(configuration) => configuration,
            Err(cause) => {
                warn!(
                    "Litestream is asked what it replicates, because its configuration can't be read: \
                     {cause}"
                );
                return Some(Event::Understood(Err(cause.clone())));
            }
        };
        let (mut watches, mut change, mut has_folders) = (Vec::new(), false, false);
        for entry in configuration.named() {
            match entry.named {
                config_file::Named::Database(path) => {
                    watches.extend(context.watch_of_litestream(&path));
                }
                config_file::Named::Folder(folder) => {
                    has_folders = true;
                    change |= folder.is_watched;
                }
                config_file::Named::UnknownFolder(_) => change = true,
                // Litestream itself has to tell it, once.
                config_file::Named::Unknown(_) => {}
            }
        }
        match has_folders {
            true => {
                let step = disk::find(context);
                self.begin(Errand::Find { change }, Ok(vec![step]), context)
            }
            false => Some(Event::Understood(Ok(Named { watches, change }))),
        }
    }

    pub(super) fn probe(&mut self, context: &mut Context) -> Option<Event> {
        let litestream = Replicate::parse(context.command());
        let version = litestream.and_then(|litestream| litestream.version());
        let steps = version.map(|command| vec![command.into()]);
        self.begin(Errand::Probe, steps, context)
    }

    /// Examines the files of the last Litestream, which was to go on at `seam`, and the WAL.
    pub(super) fn survey(
        &mut self,
        database: Database,
        seam: Option<Seam>,
        context: &mut Context,
    ) -> Option<Event> {
        let state = self.state(database, context);
        let step = disk::survey(context.path(database), &state, seam);
        self.begin(Errand::Survey(database), Ok(vec![step]), context)
    }

    pub(super) fn empty_wal(&mut self, database: Database, context: &mut Context) -> Option<Event> {
        forget_looks(database, context);
        let step = disk::empty_wal(context.path(database));
        self.begin(Errand::EmptyWal(database), Ok(vec![step]), context)
    }

    /// Starts Litestream, or has its unit restarted.
    pub(super) fn start(&mut self, rotation: Rotation, context: &mut Context) -> Option<Event> {
        match context.supervisor() {
            Supervisor::Child => Some(Event::Started(self.start_child(rotation, context))),
            Supervisor::Systemd {
                unit,
                environment_file,
            } => {
                let step = self.restart(unit, environment_file, rotation, context);
                self.begin(Errand::RestartUnit, step.map(|step| vec![step]), context)
            }
        }
    }

    /// Abandons all steps of a start.
    pub(super) fn abandon_start(&mut self, leftovers: &mut Leftovers) {
        let is_step = |errand: &Errand| match errand {
            Errand::Probe | Errand::RestartUnit => true,
            // It is news whatever becomes of a start.
            Errand::Find { .. } => false,
            Errand::Survey(_) | Errand::LookAhead(_) | Errand::EmptyWal(_) => true,
            Errand::ResetState(_) | Errand::Snapshot(_) => true,
            Errand::Look { .. } | Errand::Examine { .. } | Errand::Plan(_) => false,
            Errand::Verify(_) | Errand::Sweep(_) => false,
        };
        self.chores.abandon(is_step, leftovers);
    }

    pub(super) fn terminate(&mut self, own: &[u32]) {
        if let Some(family) = &mut self.family {
            family.terminate(own);
        }
    }

    pub(super) fn kill(&self, own: &[u32]) {
        if let Some(family) = &self.family {
            family.kill(own);
        }
    }

    pub(super) fn sync(
        &mut self,
        database: Database,
        context: &Context,
        leftovers: &mut Leftovers,
    ) -> Option<Event> {
        self.syncs.remove(&database);
        let is_examination = |errand: &Errand| errand.examines() == Some(database);
        self.chores.abandon(is_examination, leftovers);
        let socket = &context.settings.replication.control_socket;
        let path = context.paths.in_litestream(database);
        let mut listener = None;
        let request = SyncRequest::send(socket, path, |pid| {
            listener = Some(pid);
            self.may_answer(pid, context)
        });
        self.unit = listener;
        let bucket = self.read.as_ref().and_then(|read| read.bucket(path));
        match request {
            Ok(request) => {
                self.syncs.insert(database, request.to_bucket(bucket));
                None
            }
            Err(failure) => Some(Event::Synced(database, Err(failure))),
        }
    }

    /// What it has sent over the network, and what sends for it while it is stopped.
    pub(super) fn measure(&mut self, own: &[u32], context: &Context) -> Result<Sent, String> {
        let mut processes: Vec<u32> = match (context.supervisor(), &self.family) {
            (Supervisor::Child, Some(family)) => family.members(own),
            (Supervisor::Child, None) => Vec::new(),
            (Supervisor::Systemd { .. }, _) => self.unit.into_iter().collect(),
        };
        processes.extend(self.chores.senders());
        let flow = self.traffic.look(&processes).map_err(|e| e.to_string())?;
        let size = |path: &Path| {
            let database = fs::metadata(path).map_or(0, |file| file.len());
            // What is in the WAL alone is a part of it, too.
            database.max(store::wal_size(path).unwrap_or_default())
        };
        let sizes = context.paths.all().map(size);
        Ok(Sent {
            bytes: flow.acknowledged,
            queued: flow.queued,
            size: sizes.fold(0, u64::saturating_add),
        })
    }

    /// Sends it a request; if nothing listens, there is no answer.
    pub(super) fn ask(&mut self, question: Question, context: &Context) {
        let socket = &context.settings.replication.control_socket;
        self.asked = Asked::send(question, socket, |pid| self.may_answer(pid, context)).ok();
    }

    pub(super) fn reset_state(
        &mut self,
        database: Database,
        context: &mut Context,
    ) -> Option<Event> {
        forget_looks(database, context);
        // Before its files are deleted.
        let compare = disk::compare(context.path(database), &self.state(database, context));
        let steps = Replicate::parse(context.command()).map(|litestream| {
            let stop = match context.supervisor() {
                Supervisor::Child => None,
                Supervisor::Systemd { unit, .. } => unit::stop(unit),
            };
            let reset = litestream.reset(context.paths.in_litestream(database));
            let steps = stop.into_iter().chain([reset]).map(Step::from);
            [compare].into_iter().chain(steps).collect()
        });
        self.begin(Errand::ResetState(database), steps, context)
    }

    /// Finds out whether there is a replica of the missing database.
    pub(super) fn look(
        &mut self,
        database: Database,
        look: Look,
        context: &mut Context,
    ) -> Option<Event> {
        let step = look_step(database, look, context);
        let errand = Errand::Look { database, look };
        self.begin(errand, step.map(|step| vec![step]), context)
    }

    pub(super) fn abandon_look(&mut self, database: Database, leftovers: &mut Leftovers) {
        let is_look = |errand: &Errand| errand.looks_for() == Some(database);
        self.chores.abandon(is_look, leftovers);
    }

    /// Finds out whether the bucket is ahead of Litestream's files.
    pub(super) fn look_ahead(
        &mut self,
        database: Database,
        context: &mut Context,
    ) -> Option<Event> {
        let Ok(litestream) = Replicate::parse(context.command()) else {
            // Whatever it is, it can't be asked.
            return Some(Event::LookedAhead(database, Ok(None)));
        };
        let step = self.asking(database, context).map(|asking| {
            let list = litestream.list(chain::SINGLE, asking.path, asking.own.as_deref());
            bucket::look_ahead(asking.path, &list, &asking.state, asking.environment)
        });
        let errand = Errand::LookAhead(database);
        self.begin(errand, step.map(|step| vec![step]), context)
    }

    pub(super) fn abandon_look_ahead(&mut self, database: Database, leftovers: &mut Leftovers) {
        let is_look = |errand: &Errand| *errand == Errand::LookAhead(database);
        self.chores.abandon(is_look, leftovers);
    }

    /// Plans a restore, and looks at what the bucket holds.
    pub(super) fn plan_restore(
        &mut self,
        database: Database,
        context: &mut Context,
    ) -> Option<Event> {
        let Ok(litestream) = Replicate::parse(context.command()) else {
            // Whatever it is, it can't be asked.
            return Some(Event::Planned(database, Err(PlanFailure::Unsupported)));
        };
        let step = self.asking(database, context).map(|asking| {
            let nowhere = context.runtime.file(command::NO_COPY);
            let own = asking.own.as_deref();
            let question = bucket::Question {
                commands: Commands::of(&litestream, asking.path, own, &nowhere),
                state: asking.state,
                record: record(database, context),
            };
            bucket::look(asking.path, &question, asking.environment)
        });
        self.begin(Errand::Plan(database), step.map(|step| vec![step]), context)
    }

    /// What is asked with, of the bucket.
    fn asking<'a>(&self, database: Database, context: &'a Context) -> Result<Asking<'a>, String> {
        Ok(Asking {
            path: context.paths.in_litestream(database),
            own: own_configuration(database, context)?,
            state: self.state(database, context),
            environment: delivery::lines(&context.variables()?),
        })
    }

    pub(super) fn abandon_plan(&mut self, database: Database, leftovers: &mut Leftovers) {
        let is_plan = |errand: &Errand| *errand == Errand::Plan(database);
        self.chores.abandon(is_plan, leftovers);
    }

    /// Compares the replica with the database.
    pub(super) fn verify(&mut self, database: Database, context: &mut Context) -> Option<Event> {
        let step = verification::verify(database, context);
        self.begin(Errand::Verify(database), Ok(vec![step]), context)
    }

    pub(super) fn abandon_verify(
        &mut self,
        database: Database,
        context: &mut Context,
        leftovers: &mut Leftovers,
    ) {
        let is_verify = |errand: &Errand| *errand == Errand::Verify(database);
        self.chores.abandon(is_verify, leftovers);
        self.sweep(database, context);
    }

    /// Removes the copy that a verify has left which was killed: it is as large as the database.
    pub(super) fn sweep(&mut self, database: Database, context: &mut Context) {
        let path = context.path(database);
        if Aside::is_left(path, VERIFY) {
            let step = disk::sweep(path);
            self.begin(Errand::Sweep(database), Ok(vec![step]), context);
        }
    }

    /// Has Litestream, which is stopped, upload a new snapshot of one database, and end.
    pub(super) fn make_snapshot(
        &mut self,
        database: Database,
        rotation: Rotation,
        context: &mut Context,
    ) -> Option<Event> {
        let variables = variables(rotation, context);
        let steps = variables.and_then(|variables| snapshot_steps(database, &variables, context));
        self.begin(Errand::Snapshot(database), steps, context)
    }

    /// The daemon ends, and waits for no chore.
    pub(super) fn abandon_all(&mut self, leftovers: &mut Leftovers) {
        self.chores.abandon(|_| true, leftovers);
    }

    fn start_child(&mut self, rotation: Rotation, context: &Context) -> Result<(), String> {
        let variables = variables(rotation, context)?;
        let program = context.command();
        command::locate(&program[0])?;
        let lock = context.runtime.file("litestream.lock");
        let mut command = leash::command(Some(&lock), program);
        notify::withhold(&mut command);
        let started = Family::start(&command, &delivery::lines(&variables));
        self.family = Some(started.map_err(|e| format!("{} can't be started: {e}", program[0]))?);
        Ok(())
    }

    /// The step that has systemd restart `unit`, once its environment file is written.
    fn restart(
        &mut self,
        unit: &str,
        environment_file: &Path,
        rotation: Rotation,
        context: &Context,
    ) -> Result<Step, String> {
        let variables = variables(rotation, context)?;
        let restart = Restart::prepare(unit);
        self.unit_restarted = BootTime::now();
        delivery::write_environment_file(environment_file, &variables)?;
        Ok(Step::named(restart.name(unit), restart.command(unit)))
    }

    /// Examines beside the loop whether it replicated what it says. The last commit is read here: the
    /// answer says nothing of later ones.
    fn examine(
        &mut self,
        database: Database,
        position: Position,
        known: Known,
        context: &mut Context,
    ) -> Option<Event> {
        let (path, state) = (context.path(database), self.state(database, context));
        let counted = self.uploads.counted(database, position);
        let step = disk::examine(path, &state, known, counted, position);
        let last_commit = lineage::last_commit(path).ok().map(|c| c.mark);
        let errand = Errand::Examine {
            database,
            position,
            last_commit,
        };
        self.begin(errand, Ok(vec![step]), context)
    }

    /// Starts a chore; returns the failure if it can't be started.
    fn begin(
        &mut self,
        errand: Errand,
        steps: Result<Vec<Step>, String>,
        context: &mut Context,
    ) -> Option<Event> {
        match steps.and_then(|steps| self.chores.begin(errand, steps)) {
            Ok(()) => None,
            Err(cause) => self.came_of(errand, Err(cause), context),
        }
    }

    /// The event for a chore's outcome.
    fn came_of(
        &mut self,
        errand: Errand,
        outcome: Outcome,
        context: &mut Context,
    ) -> Option<Event> {
        let first = |outcome: Outcome| {
            outcome.map(|printed| printed.into_iter().next().unwrap_or_default())
        };
        Some(match errand {
            Errand::Probe => Event::Probed(
                first(outcome)
                    .and_then(|printed| rotation_for(&printed, context.litestream_config())),
            ),
            Errand::Find { change } => {
                let paths = first(outcome).and_then(|printed| disk::found(&printed));
                Event::Understood(paths.map(|paths| {
                    let watches = paths.iter().filter_map(|p| context.watch_of_litestream(p));
                    let watches = watches.collect();
                    Named { watches, change }
                }))
            }
            Errand::Survey(database) => {
                let printed = first(outcome);
                if let Ok(Ok(newest)) = printed.as_deref().map(disk::newest) {
                    self.uploads.begins(database, newest);
                }
                let survey = printed.and_then(|printed| disk::surveyed(&printed));
                Event::Surveyed(database, survey)
            }
            Errand::EmptyWal(database) => {
                let emptied = first(outcome).and_then(|printed| disk::emptied(&printed));
                Event::WalEmptied(database, emptied)
            }
            Errand::RestartUnit => Event::Started(outcome.map(drop)),
            Errand::ResetState(database) => {
                let compared = first(outcome).and_then(|printed| disk::compared(&printed));
                Event::StateReset(database, compared)
            }
            Errand::LookAhead(database) => {
                let printed = first(outcome);
                let ahead = printed.and_then(|printed| bucket::looked_ahead(&printed));
                Event::LookedAhead(database, ahead)
            }
            Errand::Plan(database) => {
                let printed = first(outcome).map_err(PlanFailure::Failed);
                let listing = printed.and_then(|printed| bucket::looked(&printed));
                Event::Planned(database, listing)
            }
            Errand::Snapshot(database) => {
                if outcome.is_ok() {
                    forget_looks(database, context);
                }
                Event::Snapshotted(database, outcome.map(drop))
            }
            Errand::Verify(database) => {
                let printed = first(outcome).map_err(NotVerified::Failed);
                let found = printed.and_then(|printed| verification::verified(&printed));
                Event::Verified(database, found)
            }
            Errand::Sweep(_) => {
                if let Err(cause) = first(outcome).and_then(|printed| disk::swept(&printed)) {
                    warn!("what a verify has left can't be removed: {cause}");
                }
                return None;
            }
            Errand::Look { database, look } => match found(look, first(outcome)) {
                Some(found) => Event::Looked(database, found),
                None => return self.look(database, Look::List, context),
            },
            Errand::Examine {
                database,
                position,
                last_commit,
            } => {
                let printed = first(outcome);
                if let Ok(Ok(found)) = printed.as_deref().map(disk::to_count) {
                    self.uploads.replicated(database, position, found);
                }
                let answer =
                    printed.and_then(|printed| disk::examined(&printed, position, last_commit));
                Event::Synced(database, answer.map_err(SyncFailure::Failed))
            }
        })
    }

    /// The local state of the Litestream that was last started.
    fn state(&self, database: Database, context: &Context) -> PathBuf {
        let path = context.paths.in_litestream(database);
        lineage::state_of(path, self.read.as_ref())
    }

    /// Whether the process that listens on the control socket is the Litestream that was started, and
    /// not one of an earlier start.
    fn may_answer(&self, pid: u32, context: &Context) -> bool {
        match (context.supervisor(), &self.family) {
            (Supervisor::Child, Some(family)) => family.includes(pid),
            (Supervisor::Child, None) => false,
            // It may be invisible from here; if it is visible, it is younger than the last restart.
            (Supervisor::Systemd { .. }, _) => Seen::of(pid)
                .and_then(|process| process.started_at())
                .is_none_or(|started| started + CLOCK_TICK >= self.unit_restarted),
        }
    }
}

/// The rotation that a Litestream of the printed version can do.
fn rotation_for(
    printed: &str,
    configuration: Result<Configuration, String>,
) -> Result<Rotation, String> {
    let version = command::version(printed).ok_or("it does not print its version")?;
    let able = match version >= command::REFRESHES {
        true => configuration.and_then(|configuration| asks_for_credentials(&configuration)),
        false => Err("this version can't ask for credentials".to_owned()),
    };
    let (major, minor, patch) = version;
    let (rotation, what) = match able {
        Ok(()) => (
            Rotation::Refresh,
            "asks for credentials by itself: rotations need no restart".to_owned(),
        ),
        Err(why) => (
            Rotation::Restart,
            format!("is restarted at each rotation: {why}"),
        ),
    };
    info!("Litestream {major}.{minor}.{patch} {what}");
    Ok(rotation)
}

/// Whether Litestream's own configuration lets it ask for credentials: if keys are set there, it never
/// asks for others.
fn asks_for_credentials(configuration: &Configuration) -> Result<(), String> {
    let keys = configuration.static_keys();
    if keys.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} holds {}, which Litestream would use for ever; remove it",
        configuration.path().display(),
        keys.join(" and ")
    ))
}

/// The environment in which Litestream has credentials, or asks for them.
fn variables(rotation: Rotation, context: &Context) -> Result<Vec<Variable>, String> {
    match rotation {
        Rotation::Restart => context.variables(),
        Rotation::Refresh => {
            asks_for_credentials(&context.litestream_config()?)?;
            context.variables_to_ask()
        }
    }
}

/// Two Litestreams on one database ruin its replica: the lock is the one of the Litestream that replicates.
fn snapshot_steps(
    database: Database,
    variables: &[Variable],
    context: &Context,
) -> Result<Vec<Step>, String> {
    let litestream = Replicate::parse(context.command())?;
    let only = only_configuration(database, context)?;
    let words = litestream.snapshot(only.as_deref());
    let name = format!("`{}`", words.join(" "));
    let lock = context.runtime.file("litestream.lock");
    let snapshot = Step::named(name, leash::command(Some(&lock), &words));
    let snapshot = snapshot.told(delivery::lines(variables));
    let stop = match context.supervisor() {
        Supervisor::Child => None,
        // Beside the unit's Litestream it would be the second one.
        Supervisor::Systemd { unit, .. } => Some(unit::stop(unit).ok_or_else(|| {
            format!(
                "only root may stop {unit}, which a new snapshot needs: stop it, run `{}` with credentials, and \
                 start it again",
                words.join(" ")
            )
        })?),
    };
    let stop = stop.map(Step::from);
    Ok(stop.into_iter().chain([snapshot]).collect())
}

fn look_step(database: Database, look: Look, context: &Context) -> Result<Step, String> {
    let variables = context.variables()?;
    let litestream = Replicate::parse(context.command())?;
    let words = match look {
        Look::List => litestream.snapshots(context.paths.in_litestream(database)),
        // Nothing is written there: the plan is not carried out.
        Look::Plan => {
            let path = context.paths.in_litestream(database);
            let own = own_configuration(database, context)?;
            litestream.plan(
                path,
                &context.runtime.file(command::NO_COPY),
                own.as_deref(),
            )
        }
    };
    let name = format!("`{}`", words.join(" "));
    let step = Step::named(name, leash::command(None, &words));
    Ok(step.told(delivery::lines(&variables)))
}

/// What a child needs that asks Litestream about the bucket.
struct Asking<'a> {
    /// The database, as Litestream's configuration spells it.
    path: &'a Path,
    /// A configuration that names it, where Litestream's own names only its folder.
    own: Option<PathBuf>,
    /// Litestream's local state of it.
    state: PathBuf,
    /// The credentials, in lines of `NAME=value`.
    environment: Zeroizing<String>,
}

/// Where it is recorded what the looks at the bucket saw.
fn record(database: Database, context: &Context) -> PathBuf {
    context.runtime.file(&format!("listed-{}.json", database.0))
}

/// Litestream is to upload the whole database: what differed before says nothing about it, and its files may
/// not even have been its own.
fn forget_looks(database: Database, context: &Context) {
    let record = record(database, context);
    if let Err(e) = file::remove(&record) {
        warn!("{} can't be removed: {e}", record.display());
    }
}

/// A configuration that names a database of a folder by its path: no restore knows it otherwise.
fn own_configuration(database: Database, context: &Context) -> Result<Option<PathBuf>, String> {
    written(database, context, "own", Configuration::alone)
}

/// A configuration that names this database and no other.
fn only_configuration(database: Database, context: &Context) -> Result<Option<PathBuf>, String> {
    written(database, context, "only", Configuration::only)
}

/// Writes what is made of Litestream's configuration, if anything has to be.
fn written(
    database: Database,
    context: &Context,
    name: &str,
    make: impl Fn(&Configuration, &Path) -> Result<Option<String>, String>,
) -> Result<Option<PathBuf>, String> {
    let Ok(configuration) = context.litestream_config() else {
        // Litestream says why it can't be read.
        return Ok(None);
    };
    let Some(text) = make(&configuration, context.paths.in_litestream(database))? else {
        return Ok(None);
    };
    let name = format!("litestream-{name}-{}.yml", database.0);
    let path = context.runtime.file(&name);
    file::replace(&path, 0o600, text.as_bytes())
        .map_err(|e| format!("{} can't be written: {e}", path.display()))?;
    Ok(Some(path))
}

/// Whether the output tells of a replica; `None` if it has to be asked in the older way.
fn found(look: Look, printed: Result<String, String>) -> Option<Result<bool, String>> {
    match (look, printed) {
        (Look::Plan, Err(cause)) if cause.contains(command::KNOWS_NO_PLAN) => None,
        (_, Err(cause)) if cause.contains(command::NOTHING_TO_RESTORE) => Some(Ok(false)),
        (_, Err(cause)) => Some(Err(cause)),
        // A list has a heading, then a line for each.
        (Look::List, Ok(printed)) => Some(Ok(printed.trim().lines().count() > 1)),
        // A plan names what it would fetch; an empty plan means that there is nothing.
        (Look::Plan, Ok(printed)) => Some(Ok(!printed.trim().is_empty())),
    }
}
