//! The reactor: one loop that waits for events, passes them to the agent, and performs its actions.
//!
//! Owns all state that is not a decision: descriptors, children, connections, the credentials in force.
//! Waits only in `poll`, and never on a network, a bus, a chip or a large file: what could take long is
//! a child or a polled socket, or not done here. Its own work is short, whatever the amount of data:
//! one row, a few expired rows, the guard, small files.
//!
//! A turn: wait; take in signals, exits, answers and the time, in that order; pass each to the agent
//! and perform its actions; then, if no due work is left, feed the watchdog. A turn that does not
//! finish feeds nothing.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use log::{error, info, log, warn};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::agent::{self, Action, Agent, Database, Event, Lease, Now};
use crate::clock::{BootTime, WallTime};
use crate::config::{Rotation, RuntimeDirectory, Settings};
use crate::credentials::delivery;
use crate::credentials::wire::FetchRequest;
use crate::credentials::{FailureClass, FetchFailure, Grant};
use crate::ipc::credentials::{self, CredentialServer};
use crate::ipc::socket::Door;
use crate::ipc::status::{self, Outside, StatusServer};
use crate::ipc::wish::{Wish, WishServer};
use crate::litestream::control::Question;
use crate::store;
use crate::store::version::SqliteVersion;
use crate::system::file;
use crate::system::network::{NetworkWatch, WaysOut};
use crate::system::process::collect_adopted;
use crate::system::signals::Signals;
use crate::system::stderr;
use crate::system::timer::{Alarm, ClockWatch};
use metrics::Metrics;

pub(crate) mod bucket;
mod chore;
mod context;
pub(crate) mod disk;
mod fetch;
mod leftovers;
mod line;
mod litestream;
mod memory;
mod metrics;
mod notify;
mod paths;
mod stores;
mod uploads;
pub(crate) mod verification;
mod voice;

use chore::Look;
use context::Context;
use fetch::FetchChild;
use leftovers::Leftovers;
use line::Line;
use litestream::Litestream;
use memory::Memory;
use notify::Notifier;
use paths::Paths;
use stores::Stores;

/// How often the WAL's size is checked while the guard holds it.
const GUARD_PACE: Duration = Duration::from_secs(1);

/// Runs the daemon until a signal ends it.
///
/// # Errors
/// Why it could not start, in one sentence. Once it runs, only a signal ends it.
pub(crate) fn run(
    config: &Path,
    settings: Settings,
    runtime: RuntimeDirectory,
) -> Result<(), String> {
    stderr::never_wait();
    // Processes that Litestream's wrapper leaves behind become our children: we see and can end them.
    if let Err(e) = prctl::set_child_subreaper(true) {
        warn!("processes that Litestream's wrapper leaves behind can't be adopted: {e}");
    }
    let mut reactor = Reactor::new(config, settings, runtime)?;
    reactor.understand();
    reactor.look_at_line();
    reactor.events.push_back(Event::Tick);
    reactor.notifier.ready();
    reactor.run();
    Ok(())
}

struct Reactor {
    context: Context,
    started: WallTime,
    agent: Agent,
    stores: Stores,
    litestream: Litestream,
    fetch: Option<FetchChild>,
    leftovers: Leftovers,
    signals: Signals,
    alarm: Alarm,
    clock_watch: ClockWatch,
    network: Option<NetworkWatch>,
    line: Line,
    status: StatusServer,
    credentials: CredentialServer,
    wishes: WishServer,
    metrics: Metrics,
    notifier: Notifier,
    memory: Memory,
    events: VecDeque<Event>,
    done: bool,
    /// One daemon per runtime directory: held until the process ends.
    _lock: Flock<File>,
}

impl Reactor {
    fn new(config: &Path, settings: Settings, runtime: RuntimeDirectory) -> Result<Self, String> {
        runtime.takes_sockets()?;
        let failed = |e: io::Error| unusable(&runtime, &e);
        file::make_folder(runtime.path()).map_err(failed)?;
        let lock = lock(&runtime)?;
        let kernel = |e: io::Error| format!("the kernel refuses a descriptor: {e}");
        let now = now();
        let version = SqliteVersion::linked();
        if !version.is_safe() {
            error!(
                "SQLite {version} can corrupt a database that one process writes and another \
                 checkpoints; link 3.51.3 or later, or build with the feature bundled-sqlite"
            );
        }
        // For every SDK on the device, however Litestream gets credentials.
        if let Err(why) = delivery::write_sdk_config(&runtime, config, &settings.region) {
            info!("AWS SDKs on this device are not led to edgerepl: {why}");
        }
        let network = NetworkWatch::new()
            .inspect_err(|e| {
                warn!("network changes go unnoticed, because netlink is not available: {e}")
            })
            .ok();
        let status = StatusServer::bind(&runtime).map_err(failed)?;
        let credentials = CredentialServer::bind(&runtime).map_err(failed)?;
        let wishes = WishServer::bind(&runtime).map_err(failed)?;
        let (metrics, memory) = (Metrics::new(&runtime), Memory::new(&runtime));
        let mut context = Context {
            config: config.to_owned(),
            settings,
            runtime,
            grant: None,
            paths: Paths::default(),
        };
        Ok(Self {
            started: now.wall,
            agent: Agent::new(context.policy(), seed(), now),
            stores: Stores::new(now.wall),
            litestream: Litestream::default(),
            fetch: None,
            leftovers: Leftovers::default(),
            signals: Signals::take().map_err(kernel)?,
            alarm: Alarm::new().map_err(kernel)?,
            clock_watch: ClockWatch::new().map_err(kernel)?,
            network,
            line: Line::new(WaysOut::look()),
            status,
            credentials,
            wishes,
            metrics,
            notifier: Notifier::new(),
            memory,
            events: VecDeque::new(),
            done: false,
            context,
            _lock: lock,
        })
    }

    fn run(&mut self) {
        let databases = self.context.settings.databases.iter();
        let names: Vec<_> = databases.map(|d| d.path.display().to_string()).collect();
        let version = env!("CARGO_PKG_VERSION");
        info!("edgerepl {version} replicates {}", names.join(", "));
        loop {
            self.turn();
            if self.done {
                self.litestream.abandon_all(&mut self.leftovers);
                self.leftovers.kill_all();
                return;
            }
            self.wait();
            self.gather();
        }
    }

    /// Handles the gathered events, and all that follow from them at once.
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
        let (grant, litestream) = (self.context.grant.as_ref(), self.litestream.id());
        self.status.answer(|| {
            let outside = |of| Outside {
                wal_size: store::wal_size(self.context.path(of)),
                replica: self.litestream.replica(of, &self.context),
                uploaded: self.litestream.uploaded(of, &self.context),
            };
            let endpoints = self.litestream.endpoints(&self.context);
            status::document(
                &report,
                grant,
                self.started,
                litestream,
                &endpoints,
                outside,
            )
        });
        self.credentials
            .answer(|| credentials::document(&report, grant));
        let uploaded = |of| self.litestream.uploaded(of, &self.context);
        self.metrics.show(&report, uploaded, now.boot);
        self.memory.settle(now.boot);
        self.notifier.show(&report);
        if self.agent.deadline() > now.boot {
            self.notifier.feed_watchdog(now.boot);
        }
    }

    /// Waits until something happens.
    fn wait(&mut self) {
        let guarded = match self.stores.guard_any() {
            true => BootTime::now() + GUARD_PACE,
            false => BootTime::NEVER,
        };
        let deadline = self
            .agent
            .deadline()
            .min(self.notifier.deadline())
            .min(self.leftovers.deadline())
            .min(self.litestream.deadline())
            .min(self.status.door().deadline())
            .min(self.credentials.door().deadline())
            .min(guarded);
        let doors = self.wishes.doors().map(Door::deadline);
        let deadline = doors.fold(deadline, BootTime::min);
        if let Err(e) = self.alarm.set(deadline) {
            error!("the timer can't be set: {e}");
        }
        let sources: [Option<BorrowedFd<'_>>; 6] = [
            Some(self.signals.as_fd()),
            Some(self.alarm.as_fd()),
            Some(self.clock_watch.as_fd()),
            self.status.door().source(),
            self.credentials.door().source(),
            self.network.as_ref().map(AsFd::as_fd),
        ];
        let fetch = self.fetch.iter().flat_map(FetchChild::pipes);
        let mut polled: Vec<PollFd<'_>> = sources
            .into_iter()
            .chain(fetch)
            .chain(self.wishes.doors().map(Door::source))
            .flatten()
            .chain(self.litestream.sources())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            // Check everything; but not in a tight loop.
            Err(e) => {
                error!("poll failed: {e}");
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }

    /// Gathers all events: every source is asked, because asking is cheap and never waits.
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
            self.events.extend(self.line.changed(WaysOut::look()));
        }
        self.look_at_line();
        for wish in self.wishes.wishes() {
            self.events.push_back(match wish {
                Wish::Sync => Event::SyncWanted,
                Wish::Pause => Event::PauseWanted(true),
                Wish::Resume => Event::PauseWanted(false),
            });
        }
        self.gather_from_children();
        self.events.extend(self.stores.too_large(&self.context));
        self.alarm.drain();
        self.events.push_back(Event::Tick);
    }

    fn look_at_line(&mut self) {
        let metered = &self.context.settings.replication.metered;
        self.events.extend(self.line.meters(metered));
    }

    fn gather_from_children(&mut self) {
        if let Some(outcome) = self.fetch.as_mut().and_then(FetchChild::poll) {
            self.abandon_fetch();
            self.fetched(outcome);
        }
        let (own, leftovers) = (self.own_children(), &mut self.leftovers);
        let known = |database| self.agent.known(database);
        let events = self
            .litestream
            .poll(&mut self.context, known, &own, leftovers);
        self.events.extend(events);
        self.leftovers.reap();
        collect_adopted(&self.own_children());
    }

    /// All children that this process started and has not collected yet.
    fn own_children(&self) -> Vec<u32> {
        let fetch = self.fetch.iter().map(FetchChild::id);
        let others = self.litestream.ids().chain(self.leftovers.ids());
        fetch.chain(others).collect()
    }

    fn fetched(&mut self, outcome: Result<Grant, FetchFailure>) {
        let event = outcome.map(|grant| {
            let lease = Lease {
                lifetime: grant.lifetime,
                server_time: grant.server_time,
                phase: agent::phase(&grant.thing_name),
            };
            self.context.grant = Some(grant);
            lease
        });
        self.events.push_back(Event::Fetched(event));
    }

    fn perform(&mut self, action: Action) {
        let (litestream, context) = (&mut self.litestream, &mut self.context);
        let (stores, leftovers) = (&mut self.stores, &mut self.leftovers);
        let events = &mut self.events;
        match action {
            Action::Fetch => self.start_fetch(),
            Action::KillFetch => self.fetch.iter_mut().for_each(FetchChild::kill),
            Action::AbandonFetch => self.abandon_fetch(),
            Action::Probe => events.extend(litestream.probe(context)),
            Action::Understand => self.understand(),
            Action::Survey(of) => {
                let seam = self.memory.seam(context.path(of));
                events.extend(litestream.survey(of, seam, context));
            }
            Action::EmptyWal(of) => events.extend(litestream.empty_wal(of, context)),
            Action::Start(rotation) => self.start(rotation),
            Action::AbandonStart => litestream.abandon_start(leftovers),
            Action::Terminate => self.litestream.terminate(&self.own_children()),
            Action::Kill => self.litestream.kill(&self.own_children()),
            Action::Sync(of) => events.extend(litestream.sync(of, context, leftovers)),
            Action::Greet => litestream.ask(Question::Who, context),
            Action::List => litestream.ask(Question::What, context),
            Action::ResetState(of) => events.extend(litestream.reset_state(of, context)),
            Action::Recall(of) => self.recall(of),
            Action::Remember(of, legacy) => self.memory.keep(context.path(of), legacy),
            Action::WriteRow(to) => events.extend(stores.write_row(to, context)),
            Action::WriteFirstRow(to) => events.extend(stores.write_first_row(to, context)),
            Action::AskRowBefore(of, id) => events.extend(stores.ask_row_before(of, id)),
            Action::LookForCommit(of) => events.push_back(Stores::last_commit(of, context)),
            Action::LookForReplica(of) => events.extend(litestream.look(of, Look::Plan, context)),
            Action::AbandonLook(of) => litestream.abandon_look(of, leftovers),
            Action::LookAhead(of) => events.extend(litestream.look_ahead(of, context)),
            Action::AbandonLookAhead(of) => litestream.abandon_look_ahead(of, leftovers),
            Action::PlanRestore(of) => events.extend(litestream.plan_restore(of, context)),
            Action::AbandonPlan(of) => litestream.abandon_plan(of, leftovers),
            Action::Verify(of) => events.extend(litestream.verify(of, context)),
            Action::AbandonVerify(of) => litestream.abandon_verify(of, context, leftovers),
            Action::MeasureUpload => self.measure_upload(),
            Action::MakeSnapshot(of, rotation) => {
                events.extend(litestream.make_snapshot(of, rotation, context));
            }
            Action::Prune(of) => stores.prune(of, context),
            Action::TakeGuard(of) => events.push_back(stores.take_guard(of, context)),
            Action::ReleaseGuard(of) => stores.release_guard(of),
            Action::AbandonGuard(of) => {
                stores.release_guard(of);
                events.extend(litestream.empty_wal(of, context));
            }
            Action::Log(level, text) => log!(level, "{text}"),
            Action::Exit => self.done = true,
        }
    }

    /// What Litestream has sent is known at once.
    fn measure_upload(&mut self) {
        let own = self.own_children();
        let sent = self.litestream.measure(&own, &self.context);
        self.events.push_back(Event::Measured(sent));
    }

    fn start_fetch(&mut self) {
        let failures = self.agent.failures_in_a_row();
        let (settings, runtime) = (&self.context.settings, &self.context.runtime);
        let request = FetchRequest::of(settings, runtime, failures);
        let room = self.leftovers.has_room();
        match room.and_then(|()| FetchChild::start(&request)) {
            Ok(child) => self.fetch = Some(child),
            Err(cause) => {
                let message = format!("the fetch can't be started: {cause}");
                let failure = FetchFailure::new(FailureClass::Transient, message);
                self.events.push_back(Event::Fetched(Err(failure)));
            }
        }
    }

    fn abandon_fetch(&mut self) {
        if let Some(fetch) = self.fetch.take() {
            self.leftovers.add(fetch.into_child());
        }
    }

    /// Reads Litestream's configuration, which the next Litestream will use.
    fn understand(&mut self) {
        let event = self.litestream.understand(&mut self.context);
        self.events.extend(event);
    }

    fn start(&mut self, rotation: Rotation) {
        self.understand();
        self.events
            .extend(self.litestream.start(rotation, &mut self.context));
    }

    /// Reads what an earlier run recorded of a database.
    fn recall(&mut self, database: Database) {
        self.litestream.sweep(database, &mut self.context);
        let earlier = self.memory.recall(self.context.path(database));
        self.events.push_back(Event::Recalled(database, earlier));
    }

    /// Reloads the configuration; an invalid one changes nothing.
    fn reload(&mut self) {
        self.notifier.reloading();
        match self.context.reload() {
            Err(cause) => error!(
                "the configuration could not be reloaded, and the old one stays in force: {cause}"
            ),
            Ok(rows_move) => {
                if rows_move {
                    self.stores.forget_rows();
                }
                info!("the configuration was reloaded");
                let understood = self.litestream.names(&mut self.context);
                let reloaded = Event::Reloaded(self.context.policy());
                self.events.extend(understood.into_iter().chain([reloaded]));
            }
        }
        self.notifier.ready();
    }
}

/// Keeps other daemons out of the runtime directory.
fn lock(runtime: &RuntimeDirectory) -> Result<Flock<File>, String> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(runtime.file("lock"))
        .map_err(|e| unusable(runtime, &e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        let folder = runtime.path().display();
        format!("another edgerepl runs with the runtime directory {folder}")
    })
}

fn unusable(runtime: &RuntimeDirectory, error: &io::Error) -> String {
    let folder = runtime.path().display();
    format!("{folder} can't be used as the runtime directory: {error}")
}

fn now() -> Now {
    Now {
        boot: BootTime::now(),
        wall: WallTime::now(),
    }
}

/// A seed for jitter: no secret depends on it, so the time is enough if the kernel gives none.
fn seed() -> u64 {
    let mut seed = [0; 8];
    match File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut seed)) {
        Ok(()) => u64::from_ne_bytes(seed),
        Err(_) => u64::from(std::process::id()) ^ BootTime::now().since_boot().as_nanos() as u64,
    }
}
