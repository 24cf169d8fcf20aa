//! The reactor: one loop that waits for whatever happens, tells the agent, and does what it says.
//!
//! Owns all state that is not a decision: descriptors, children, connections, the credentials in
//! force. Waits in one place only, `poll`, and never on a network, a bus or a chip: what could take
//! long is a child, a socket that is polled, or not done here.
//!
//! A turn: wait; take in signals, exits, answers and the time, in that order; hand each to the
//! agent and perform its actions; then, if nothing is left that was due, feed the watchdog. A turn
//! that does not finish feeds nothing.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use log::{debug, error, info, log, warn};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::agent::{Action, Agent, Delivery, Event, Lease, Now, Policy, SupervisorKind};
use crate::clock::{BootTime, WallTime};
use crate::config::{Heartbeat, RuntimeDirectory, Settings, Supervisor};
use crate::credentials::delivery::{self, Source};
use crate::credentials::wire::FetchRequest;
use crate::credentials::{FailureClass, FetchFailure, Grant};
use crate::ipc::credentials::{self, CredentialServer};
use crate::ipc::status::{self, StatusServer};
use crate::litestream::answer::{Answer, Position, SyncFailure};
use crate::litestream::command::{self, Replicate};
use crate::litestream::config_file::{Configuration, Variables};
use crate::litestream::control::{Asked, Question, SyncRequest, Told};
use crate::litestream::leash;
use crate::litestream::lineage;
use crate::litestream::unit::{self, Restart};
use crate::store::version::SqliteVersion;
use crate::store::{self, Store, WalGuard};
use crate::system::family::Seen;
use crate::system::file;
use crate::system::network::NetworkWatch;
use crate::system::process::{Process, collect_adopted};
use crate::system::signals::Signals;
use crate::system::stderr;
use crate::system::timer::{Alarm, ClockWatch};
use metrics::Metrics;

mod children;
mod litestream;
mod memory;
mod metrics;
mod notify;
mod voice;

use children::{Chore, Errand, FetchChild, Leftovers, Look, Step};
use litestream::Litestream;
use memory::{Earlier, Memory};
use notify::Notifier;

/// While the guard holds, the WAL's size is looked at so often.
const GUARD_PACE: Duration = Duration::from_secs(1);

/// How exactly the kernel tells when a process was started.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Runs the daemon until somebody ends it.
///
/// # Errors
/// What kept it from beginning, in one sentence. Once it runs, nothing but a signal ends it.
pub(crate) fn run(
    config: &Path,
    settings: Settings,
    runtime: RuntimeDirectory,
) -> Result<(), String> {
    stderr::never_wait();
    // What a wrapper around Litestream leaves behind comes here, so that it is seen, and can be ended.
    if let Err(e) = prctl::set_child_subreaper(true) {
        warn!("what Litestream's wrapper leaves behind can't be adopted: {e}");
    }
    let mut reactor = Reactor::new(config, settings, runtime)?;
    reactor.recall();
    reactor.understand_for_a_start();
    reactor.notifier.ready();
    reactor.run();
    Ok(())
}

struct Reactor {
    config: PathBuf,
    settings: Settings,
    runtime: RuntimeDirectory,
    started: WallTime,
    agent: Agent,
    grant: Option<Grant>,
    store: Option<Store>,
    guard: Option<WalGuard>,
    litestream: Option<Litestream>,
    /// When the unit that runs Litestream was last asked to be restarted.
    unit_restarted: BootTime,
    fetch: Option<FetchChild>,
    chore: Option<(Errand, Chore)>,
    look: Option<(Look, Chore)>,
    leftovers: Leftovers,
    sync: Option<SyncRequest>,
    asked: Option<Asked>,
    /// The folder in which the Litestream that was last started remembers what it has read.
    local_state: PathBuf,
    /// The mark of its files' folder before the start, until it has answered for the first time.
    folder_before: Option<Option<u64>>,
    /// The name of the bucket, for what may have to be told.
    bucket: Option<String>,
    signals: Signals,
    alarm: Alarm,
    clock_watch: ClockWatch,
    network: Option<NetworkWatch>,
    status: StatusServer,
    credentials: CredentialServer,
    metrics: Metrics,
    notifier: Notifier,
    memory: Memory,
    /// What an earlier run left is not known: the row before the first one of this run tells.
    asks_database: bool,
    events: VecDeque<Event>,
    done: bool,
    /// One daemon for one runtime directory: held until the process ends.
    _lock: Flock<File>,
}

impl Reactor {
    fn new(config: &Path, settings: Settings, runtime: RuntimeDirectory) -> Result<Self, String> {
        runtime.takes_sockets()?;
        let folder = runtime.path().display().to_string();
        let failed = |e: io::Error| format!("{folder} can't be used as the runtime directory: {e}");
        file::make_folder(runtime.path()).map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(runtime.file("lock"))
            .map_err(failed)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| format!("another edgerepl runs with the runtime directory {folder}"))?;
        let kernel = |e: io::Error| format!("the kernel refuses a descriptor: {e}");
        let now = now();
        let version = SqliteVersion::linked();
        if !version.is_safe() {
            error!(
                "SQLite {version} can corrupt a database that one process writes and another \
                 checkpoints; link 3.51.3 or later, or build with the feature bundled-sqlite"
            );
        }
        // For every SDK on the device, whatever Litestream is given.
        if let Err(why) = delivery::write_sdk_config(&runtime, config, &settings.region) {
            info!("credential-process is for whoever calls it by hand: {why}");
        }
        let network = NetworkWatch::new()
            .inspect_err(|e| warn!("changes of the network go unnoticed, without netlink: {e}"))
            .ok();
        Ok(Self {
            config: config.to_owned(),
            started: now.wall,
            agent: Agent::new(policy(&settings), seed(), now),
            grant: None,
            store: store(&settings, now.wall),
            guard: None,
            litestream: None,
            unit_restarted: BootTime::default(),
            fetch: None,
            chore: None,
            look: None,
            leftovers: Leftovers::default(),
            sync: None,
            asked: None,
            local_state: PathBuf::new(),
            folder_before: None,
            bucket: None,
            signals: Signals::take().map_err(kernel)?,
            alarm: Alarm::new().map_err(kernel)?,
            clock_watch: ClockWatch::new().map_err(kernel)?,
            network,
            status: StatusServer::bind(&runtime).map_err(failed)?,
            credentials: CredentialServer::bind(&runtime).map_err(failed)?,
            metrics: Metrics::new(&runtime),
            notifier: Notifier::new(),
            memory: Memory::new(&runtime),
            asks_database: false,
            events: VecDeque::from([Event::Tick]),
            done: false,
            settings,
            runtime,
            _lock: lock,
        })
    }

    fn run(&mut self) {
        info!(
            "edgerepl {} replicates {}",
            env!("CARGO_PKG_VERSION"),
            self.database().display()
        );
        loop {
            self.turn();
            if self.done {
                let look = self.look.take().map(|(_, look)| look.into_child());
                look.iter().for_each(Process::kill);
                self.leftovers.kill_all();
                return;
            }
            self.wait();
            self.gather();
        }
    }

    /// Handles what was gathered, and whatever comes of it at once.
    fn turn(&mut self) {
        while let Some(event) = self.events.pop_front() {
            for action in self.agent.handle(event, now()) {
                self.perform(action);
            }
            if self.events.is_empty() && self.agent.deadline() <= BootTime::now() {
                self.events.push_back(Event::Tick);
            }
        }
        let now = now();
        let report = self.agent.report(now);
        let litestream = self.litestream.as_ref().map(Litestream::id);
        self.status
            .answer(|| status::document(&report, self.grant.as_ref(), self.started, litestream));
        self.credentials
            .answer(|| credentials::document(&report, self.grant.as_ref()));
        self.metrics.show(&report, now.boot);
        self.notifier.show(&report);
        if self.agent.deadline() > now.boot {
            self.notifier.feed_watchdog(now.boot);
        }
    }

    /// Sleeps until something happens.
    fn wait(&mut self) {
        let guarded = self
            .guard
            .as_ref()
            .map_or(BootTime::NEVER, |_| BootTime::now() + GUARD_PACE);
        let deadline = self
            .agent
            .deadline()
            .min(self.notifier.deadline())
            .min(self.leftovers.deadline())
            .min(
                self.litestream
                    .as_ref()
                    .map_or(BootTime::NEVER, Litestream::deadline),
            )
            .min(self.status.door().deadline())
            .min(self.credentials.door().deadline())
            .min(guarded);
        if let Err(e) = self.alarm.set(deadline) {
            error!("the alarm can't be set: {e}");
        }
        let sources: [Option<BorrowedFd<'_>>; 9] = [
            Some(self.signals.as_fd()),
            Some(self.alarm.as_fd()),
            Some(self.clock_watch.as_fd()),
            self.status.door().source(),
            self.credentials.door().source(),
            self.network.as_ref().map(AsFd::as_fd),
            self.sync.as_ref().map(AsFd::as_fd),
            self.asked.as_ref().map(AsFd::as_fd),
            self.litestream.as_ref().and_then(Litestream::pipe),
        ];
        let children = [
            self.fetch.as_ref().map(FetchChild::pipes),
            self.chore.as_ref().map(|(_, chore)| chore.pipes()),
            self.look.as_ref().map(|(_, look)| look.pipes()),
        ];
        let mut polled: Vec<PollFd<'_>> = sources
            .into_iter()
            .chain(children.into_iter().flatten().flatten())
            .flatten()
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Nothing to be done but to look at everything; not in a tight loop, though.
            Err(e) => {
                error!("the kernel can't wait: {e}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    /// Takes in all that has happened: every source is asked, for each ask is cheap and none waits.
    fn gather(&mut self) {
        for signal in self.signals.drain() {
            match signal {
                Signal::SIGHUP => self.reload(),
                Signal::SIGTERM | Signal::SIGINT => {
                    self.notifier.stopping();
                    self.events.push_back(Event::Terminate);
                }
                _ => {}
            }
        }
        if self.clock_watch.drain() {
            self.events.push_back(Event::ClockStepped);
        }
        if self.network.as_ref().is_some_and(NetworkWatch::drain) {
            self.events.push_back(Event::NetworkChanged);
        }
        self.gather_from_children();
        if let Some(answer) = self.sync.as_mut().and_then(SyncRequest::poll) {
            self.sync = None;
            let answer = answer.and_then(|position| self.examine(position));
            self.events.push_back(Event::Synced(answer));
        }
        if let Some(told) = self.asked.as_mut().and_then(Asked::poll) {
            self.asked = None;
            let event = match told {
                Told::Here => Some(Event::Greeted),
                Told::Replicates(listed) => Some(Event::Listed(self.others(listed))),
                Told::Nothing => None,
            };
            self.events.extend(event);
        }
        let limit = self.settings.database.wal_guard;
        if let (Some(guard), Some(limit)) = (&self.guard, limit)
            && guard.wal_size() > limit
        {
            self.events.push_back(Event::WalTooLarge);
        }
        self.alarm.drain();
        self.events.push_back(Event::Tick);
    }

    fn gather_from_children(&mut self) {
        if let Some(fetch) = &mut self.fetch
            && let Some(outcome) = fetch.poll()
        {
            if let Some(fetch) = self.fetch.take() {
                self.leftovers.add(fetch.into_child());
            }
            self.fetched(outcome);
        }
        let own = self.own_children();
        if let Some(litestream) = &mut self.litestream
            && let Some(how) = litestream.poll(&own, &secrets(self.grant.as_ref()))
        {
            self.litestream = None;
            self.sync = None;
            self.events.push_back(Event::Exited(how));
        }
        if let Some((errand, chore)) = &mut self.chore
            && let Some(result) = chore.poll()
        {
            let event = match errand {
                Errand::Probe => Event::Probed(result.and_then(|printed| {
                    let thing_name = self.grant.as_ref().map_or("", |grant| &grant.thing_name);
                    delivery_for(&printed, configuration(&self.settings, thing_name))
                })),
                Errand::RestartUnit => Event::Started(result.map(drop)),
                Errand::ResetState { continues } => Event::StateReset(result.map(|_| *continues)),
            };
            self.chore = None;
            self.events.push_back(event);
        }
        if let Some((look, chore)) = &mut self.look
            && let Some(result) = chore.poll()
        {
            let look = *look;
            self.look = None;
            self.looked(look, result);
        }
        self.leftovers.reap();
        collect_adopted(&self.own_children());
    }

    /// All processes that this one started itself and did not collect yet.
    fn own_children(&self) -> Vec<u32> {
        let litestream = self.litestream.as_ref().map(Litestream::id);
        let fetch = self.fetch.as_ref().map(FetchChild::id);
        let chore = self.chore.as_ref().map(|(_, chore)| chore.id());
        let look = self.look.as_ref().map(|(_, look)| look.id());
        let known = litestream.into_iter().chain(fetch).chain(chore).chain(look);
        known.chain(self.leftovers.ids()).collect()
    }

    /// What Litestream said of a replica of the missing database.
    fn looked(&mut self, look: Look, result: Result<String, String>) {
        let found = match (look, result) {
            (Look::Plan, Err(cause)) if cause.contains(command::KNOWS_NO_PLAN) => {
                return self.look_for_replica(Look::List);
            }
            (_, Err(cause)) if cause.contains(command::NOTHING_TO_RESTORE) => Ok(false),
            (_, Err(cause)) => Err(cause),
            // Below its heading a list has a line for each.
            (Look::List, Ok(printed)) => Ok(printed.trim().lines().count() > 1),
            // A plan names what it would fetch; one that names nothing is none.
            (Look::Plan, Ok(printed)) => Ok(!printed.trim().is_empty()),
        };
        self.events.push_back(Event::Looked(found));
    }

    fn look_for_replica(&mut self, look: Look) {
        match self.start_look(look) {
            Ok(chore) => self.look = Some((look, chore)),
            Err(cause) => self.events.push_back(Event::Looked(Err(cause))),
        }
    }

    fn start_look(&self, look: Look) -> Result<Chore, String> {
        let grant = self.grant.as_ref().ok_or("there are no credentials")?;
        let litestream = Replicate::parse(&self.settings.replication.command)?;
        let words = match look {
            Look::List => litestream.snapshots(self.database()),
            // Nothing is written there: a plan is made and not carried out.
            Look::Plan => litestream.plan(self.database(), &self.runtime.file("no-copy")),
        };
        let command = leash::command(None, &words);
        let values = Source::Values(&grant.credentials);
        let variables = delivery::environment(&grant.thing_name, &self.settings.region, values);
        let name = format!("`{}`", words.join(" "));
        let step = Step::named(name, command).told(delivery::lines(&variables));
        Chore::start([step])
    }

    fn fetched(&mut self, outcome: Result<Grant, FetchFailure>) {
        let event = outcome.map(|grant| {
            let lease = Lease {
                lifetime: grant.lifetime,
                server_time: grant.server_time,
                phase: phase(&grant.thing_name),
            };
            self.grant = Some(grant);
            lease
        });
        self.events.push_back(Event::Fetched(event));
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Fetch => self.start_fetch(),
            Action::KillFetch => {
                if let Some(fetch) = &mut self.fetch {
                    fetch.kill();
                }
            }
            Action::AbandonFetch => {
                if let Some(fetch) = self.fetch.take() {
                    self.leftovers.add(fetch.into_child());
                }
            }
            Action::Probe => {
                let litestream = Replicate::parse(&self.settings.replication.command);
                let version = litestream.and_then(|litestream| litestream.version());
                match version.and_then(|command| Chore::start([command.into()])) {
                    Ok(chore) => self.chore = Some((Errand::Probe, chore)),
                    Err(cause) => self.events.push_back(Event::Probed(Err(cause))),
                }
            }
            Action::Start(delivery) => {
                self.understand_for_a_start();
                if let Some(result) = self.start_litestream(delivery).transpose() {
                    self.events.push_back(Event::Started(result));
                }
            }
            Action::AbandonStart => {
                if let Some((_, chore)) = self.chore.take() {
                    self.leftovers.add(chore.into_child());
                }
            }
            Action::Terminate => {
                let own = self.own_children();
                if let Some(litestream) = &mut self.litestream {
                    litestream.terminate(&own);
                }
            }
            Action::Kill => {
                if let Some(litestream) = &self.litestream {
                    litestream.kill(&self.own_children());
                }
            }
            Action::Sync => {
                let socket = &self.settings.replication.control_socket;
                let may_answer = |pid| self.may_answer(pid);
                match SyncRequest::send(socket, &self.settings.database.path, may_answer) {
                    Ok(request) => self.sync = Some(request.to_bucket(self.bucket.clone())),
                    Err(failure) => {
                        self.sync = None;
                        self.events.push_back(Event::Synced(Err(failure)));
                    }
                }
            }
            Action::Greet => self.ask(Question::Who),
            Action::List => self.ask(Question::What),
            Action::ResetState => self.reset_state(),
            Action::EmptyWal => {
                let emptied = self.empty_wal("Litestream has to upload the whole database");
                self.events.push_back(Event::WalEmptied(emptied));
            }
            Action::Remember(unproved) => self.memory.keep(unproved),
            Action::WriteRow => {
                if self.store.as_ref().is_some_and(Store::is_missing) {
                    return self.events.push_back(Event::DatabaseMissing);
                }
                let row = self.store.as_mut().map(Store::write_row);
                row.into_iter().for_each(|row| self.wrote(row));
            }
            Action::WriteFirstRow => {
                let row = self.store.as_mut().map(Store::write_first_row);
                row.into_iter().for_each(|row| self.wrote(row));
            }
            Action::LookForReplica => self.look_for_replica(Look::Plan),
            Action::AbandonLook => {
                if let Some((_, look)) = self.look.take() {
                    self.leftovers.add(look.into_child());
                }
            }
            Action::Prune => {
                let keep = self.settings.heartbeat.as_ref().and_then(|h| h.keep);
                if let (Some(store), Some(keep)) = (&mut self.store, keep)
                    && let Err(cause) = store.prune(keep)
                {
                    warn!("old heartbeat rows stay for now: {cause}");
                }
            }
            Action::TakeGuard => {
                let taken = WalGuard::take(self.database());
                let result = taken.map(|guard| self.guard = Some(guard));
                self.events.push_back(Event::GuardTaken(result));
            }
            Action::ReleaseGuard => self.guard = None,
            Action::AbandonGuard => {
                self.guard = None;
                // From here on it may be reset at any time, and nobody would know at which. Where others
                // read, Litestream among them, it can't be emptied, and they hold it meanwhile.
                if let Err(why) = store::empty_wal(self.database()) {
                    debug!("the WAL that was let go is not emptied: {why}");
                }
            }
            Action::Log(level, text) => log!(level, "{text}"),
            Action::Exit => self.done = true,
        }
    }

    fn start_fetch(&mut self) {
        let failures = self.agent.failures_in_a_row();
        let request = FetchRequest::of(&self.settings, &self.runtime, failures);
        match self
            .leftovers
            .has_room()
            .and_then(|()| FetchChild::start(&request))
        {
            Ok(child) => self.fetch = Some(child),
            Err(cause) => {
                let message = format!("the fetch can't be started: {cause}");
                let failure = FetchFailure::new(FailureClass::Transient, message);
                self.events.push_back(Event::Fetched(Err(failure)));
            }
        }
    }

    /// Starts Litestream, or has it restarted; `None` where the outcome is yet to come.
    fn start_litestream(&mut self, delivery: Delivery) -> Result<Option<()>, String> {
        let grant = self.grant.as_ref().ok_or("there are no credentials")?;
        let region = &self.settings.region;
        let sdk_config;
        let source = match delivery {
            Delivery::Environment => Source::Values(&grant.credentials),
            Delivery::Process => {
                asks_for_credentials(self.configuration())?;
                sdk_config = delivery::write_sdk_config(&self.runtime, &self.config, region)?;
                Source::Config(&sdk_config)
            }
        };
        let variables = delivery::environment(&grant.thing_name, region, source);
        if lineage::wal_was_reset(self.database(), &self.local_state) {
            self.empty_wal("the WAL was reset while Litestream did not hold it")?;
        }
        if let Supervisor::Systemd {
            unit,
            environment_file,
        } = &self.settings.replication.supervisor
        {
            let restart = Restart::prepare(unit);
            self.unit_restarted = BootTime::now();
            delivery::write_environment_file(environment_file, &variables)?;
            let step = Step::named(restart.name(unit), restart.command(unit));
            self.chore = Some((Errand::RestartUnit, Chore::start([step])?));
            return Ok(None);
        }
        let program = &self.settings.replication.command;
        command::locate(&program[0])?;
        let mut command = leash::command(Some(&self.runtime.file("litestream.lock")), program);
        notify::withhold(&mut command);
        let started = Litestream::start(&command, &delivery::lines(&variables));
        self.litestream =
            Some(started.map_err(|e| format!("{} can't be started: {e}", program[0]))?);
        Ok(Some(()))
    }

    /// Puts a question to Litestream; where nobody listens nobody answers.
    fn ask(&mut self, question: Question) {
        let socket = &self.settings.replication.control_socket;
        self.asked = Asked::send(question, socket, |pid| self.may_answer(pid)).ok();
    }

    /// Whether the process that listens on the control socket is the Litestream that was started, and not
    /// one that was left behind by an earlier start.
    fn may_answer(&self, pid: u32) -> bool {
        match (&self.settings.replication.supervisor, &self.litestream) {
            (Supervisor::Child, Some(litestream)) => litestream.includes(pid),
            (Supervisor::Child, None) => false,
            // It may be invisible from here; where it is not, it is younger than the last restart.
            (Supervisor::Systemd { .. }, _) => Seen::of(pid)
                .and_then(|process| process.started_at())
                .is_none_or(|started| started + CLOCK_TICK >= self.unit_restarted),
        }
    }

    /// Litestream's configuration as one that starts now would understand it.
    fn configuration(&self) -> Result<Configuration, String> {
        let thing_name = self.grant.as_ref().map_or("", |grant| &grant.thing_name);
        configuration(&self.settings, thing_name)
    }

    /// Reads Litestream's configuration, by which the next one will go that is started.
    fn understand(&mut self) -> Result<Configuration, String> {
        let configuration = self.configuration();
        let unwatched = configuration
            .as_ref()
            .map(|known| known.unwatched(self.database()));
        for other in unwatched.iter().flatten() {
            warn!("Litestream replicates {other}, too, which edgerepl neither guards nor proves");
        }
        let unwatched = unwatched.map_err(|cause| {
            warn!("Litestream itself has to tell what it replicates: {cause}");
            cause.clone()
        });
        self.events.push_back(Event::Understood(unwatched));
        configuration
    }

    /// What is not the database that is watched, whatever the way to it.
    fn others(&self, mut listed: Vec<PathBuf>) -> Vec<String> {
        let file = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let watched = file(self.database());
        listed.retain(|path| file(path) != watched);
        let names = listed.iter().map(|path| path.display().to_string());
        names.collect()
    }

    /// Litestream is about to be started, by what its configuration says now.
    fn understand_for_a_start(&mut self) {
        let configuration = self.understand().ok();
        let configuration = configuration.as_ref();
        self.bucket = configuration.and_then(|known| known.bucket(self.database()));
        self.local_state = lineage::state_of(self.database(), configuration);
        self.folder_before = Some(lineage::folder(&self.local_state));
    }

    /// What Litestream says that it replicated, and what shows whether it did.
    fn examine(&mut self, position: Position) -> Result<Answer, SyncFailure> {
        let before = self.folder_before.take();
        let (database, state) = (self.database(), &self.local_state);
        let is_new = before.is_some_and(|before| before != lineage::folder(state));
        if is_new && lineage::passed_a_wal_over(state) {
            return Err(SyncFailure::BeginningMissed);
        }
        let seen = self.agent.last_seen();
        if lineage::lacks_beginning(database, state, seen.unwrap_or_default(), position.local) {
            return Err(SyncFailure::BeginningMissed);
        }
        Ok(Answer {
            position,
            files: lineage::files(state, position.local, seen),
            last_commit: lineage::last_commit(database).ok(),
        })
    }

    /// What an earlier run knew of rows that were not proved.
    fn recall(&mut self) {
        match self.memory.recall() {
            Earlier::Proved => {}
            Earlier::Unknown => self.asks_database = true,
            Earlier::UnprovedSince(since) => {
                let age = BootTime::now().since(since);
                self.events.push_back(Event::Inherited(age));
            }
        }
    }

    /// A row was committed, or could not be. Before the first one of this run there is the last one of an
    /// earlier run, perhaps.
    fn wrote(&mut self, row: Result<i64, String>) {
        if let (Ok(id), Some(store), true) = (&row, &self.store, self.asks_database) {
            self.asks_database = false;
            let age = store.age_of_row_before(*id);
            self.events.extend(age.map(Event::Inherited));
        }
        self.events.push_back(Event::Row(row));
    }

    /// Leaves Litestream no WAL that it would take for the one that it knows: it uploads the whole
    /// database then.
    fn empty_wal(&mut self, because: &str) -> Result<(), String> {
        // It would keep the WAL from being emptied.
        let guarded = self.guard.take().is_some();
        let emptied = store::empty_wal(self.database());
        if guarded {
            self.guard = WalGuard::take(self.database()).ok();
        }
        emptied.map_err(|why| {
            format!("{because}; the WAL has to be emptied before Litestream may start: {why}")
        })?;
        warn!(
            "{because}; the WAL was emptied, so that Litestream uploads the whole database and misses \
             no row"
        );
        Ok(())
    }

    fn reset_state(&mut self) {
        let replication = &self.settings.replication;
        let started = Replicate::parse(&replication.command).and_then(|litestream| {
            let reset = litestream.reset(&self.settings.database.path);
            let stop = match &replication.supervisor {
                Supervisor::Child => None,
                Supervisor::Systemd { unit, .. } => unit::stop(unit),
            };
            let steps = stop.into_iter().chain([reset]).map(Step::from);
            Chore::start(steps)
        });
        let continues = lineage::is_of_one_wal(self.database(), &self.local_state);
        match started {
            Ok(chore) => self.chore = Some((Errand::ResetState { continues }, chore)),
            Err(cause) => self.events.push_back(Event::StateReset(Err(cause))),
        }
    }

    /// Reads the configuration anew; one that can't work changes nothing.
    fn reload(&mut self) {
        self.notifier.reloading();
        match Settings::load(&self.config, &self.runtime) {
            Err(cause) => error!("the configuration is not reloaded, the old one stays: {cause}"),
            Ok(mut settings) => {
                let running = &self.settings.replication.supervisor;
                if settings.replication.supervisor != *running {
                    warn!(
                        "[replication] supervisor changes when edgerepl is restarted, not before"
                    );
                    settings.replication.supervisor = running.clone();
                }
                let rows_change = settings.database.path != self.settings.database.path
                    || table(&settings) != table(&self.settings);
                self.settings = settings;
                if rows_change {
                    self.store = store(&self.settings, self.started);
                }
                info!("the configuration was reloaded");
                // What can't be read was told.
                let _ = self.understand();
                self.events
                    .push_back(Event::Reloaded(policy(&self.settings)));
            }
        }
        self.notifier.ready();
    }

    fn database(&self) -> &Path {
        &self.settings.database.path
    }
}

/// What a Litestream of the printed version understands.
fn delivery_for(
    printed: &str,
    configuration: Result<Configuration, String>,
) -> Result<Delivery, String> {
    let version = command::version(printed).ok_or("it does not say its version")?;
    let able = match version >= command::REFRESHES {
        true => asks_for_credentials(configuration),
        false => Err("this version can't ask for credentials".to_owned()),
    };
    let (major, minor, patch) = version;
    let (delivery, what) = match able {
        Ok(()) => (
            Delivery::Process,
            "asks for credentials by itself: rotations need no restart".to_owned(),
        ),
        Err(why) => (
            Delivery::Environment,
            format!("is restarted at each rotation: {why}"),
        ),
    };
    info!("Litestream {major}.{minor}.{patch} {what}");
    Ok(delivery)
}

/// Whether nothing in Litestream's own configuration keeps it from asking: it takes keys that stand
/// there, and never asks for others.
fn asks_for_credentials(configuration: Result<Configuration, String>) -> Result<(), String> {
    let configuration = configuration?;
    let keys = configuration.static_keys();
    if keys.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} holds {}, which Litestream would take for ever; remove it",
        configuration.path().display(),
        keys.join(" and ")
    ))
}

fn configuration(settings: &Settings, thing_name: &str) -> Result<Configuration, String> {
    let replication = &settings.replication;
    let is_unit = matches!(replication.supervisor, Supervisor::Systemd { .. });
    let variables = Variables::of_litestream(thing_name, &settings.region, is_unit);
    Configuration::of(&replication.command, &variables)
}

fn policy(settings: &Settings) -> Policy {
    Policy {
        renew_before: settings.renew_before,
        heartbeat: settings.heartbeat.as_ref().map(|h| h.interval),
        prune: settings
            .heartbeat
            .as_ref()
            .is_some_and(|h| h.keep.is_some()),
        supervisor: match settings.replication.supervisor {
            Supervisor::Child => SupervisorKind::Child,
            Supervisor::Systemd { .. } => SupervisorKind::Systemd,
        },
        rotation: settings.replication.rotation,
        wal_guard: settings.database.wal_guard.is_some(),
        database: settings.database.path.clone(),
    }
}

fn store(settings: &Settings, started: WallTime) -> Option<Store> {
    let heartbeat = settings.heartbeat.as_ref()?;
    Some(Store::new(
        &settings.database.path,
        &heartbeat.table,
        started,
    ))
}

fn table(settings: &Settings) -> Option<&crate::config::TableName> {
    settings
        .heartbeat
        .as_ref()
        .map(|Heartbeat { table, .. }| table)
}

fn now() -> Now {
    Now {
        boot: BootTime::now(),
        wall: WallTime::now(),
    }
}

/// What is never passed on of what Litestream says.
fn secrets(grant: Option<&Grant>) -> Vec<&str> {
    let credentials = grant.map(|grant| &grant.credentials);
    let secrets = credentials.map(|c| [c.secret_access_key.as_str(), c.session_token.as_str()]);
    secrets.into_iter().flatten().collect()
}

/// Where a thing stands in its fleet: the same at each boot, and spread evenly over all names
/// (FNV-1a, folded).
fn phase(thing_name: &str) -> u16 {
    let hash = thing_name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash >> 16) as u16 ^ hash as u16
}

/// A seed for jitter: no secret depends on it, so the time will do where the kernel has none.
fn seed() -> u64 {
    let mut seed = [0; 8];
    match File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut seed)) {
        Ok(()) => u64::from_ne_bytes(seed),
        Err(_) => u64::from(std::process::id()) ^ BootTime::now().since_boot().as_nanos() as u64,
    }
}
