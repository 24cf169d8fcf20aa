//! What the world produced, kind by kind.
//!
//! Owns the list of all kinds, and how often each came. A new event or action of the agent does not
//! compile here before it has a kind, and a kind that never comes fails the run: what the world does not
//! produce, no law looks at.

use std::fmt;
use std::ops::AddAssign;

use edgerepl::agent::{
    Action, Activity, Debt, Earlier, Event, Legacy, NotVerified, Sent, Verified,
};
use edgerepl::config::Rotation;
use edgerepl::credentials::{FailureClass, FetchFailure};
use edgerepl::litestream::answer::SyncFailure;
use edgerepl::litestream::chain::{Chain, Listing, PlanFailure, Stranger};

/// Names the kinds of a type, in a match that the compiler holds to be complete.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident of $type:ty { $($kind:ident: $pattern:pat,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        enum $name { $($kind),+ }

        impl $name {
            const ALL: &'static [Self] = &[$(Self::$kind),+];

            fn of(what: &$type) -> Self {
                match what { $($pattern => Self::$kind),+ }
            }
        }
    };
}

kinds! {
    /// Events, their outcomes apart.
    EventKind of Event {
        Tick: Event::Tick,
        Granted: Event::Fetched(Ok(_)),
        FetchFailed: Event::Fetched(Err(FetchFailure { class: FailureClass::Transient, .. })),
        KeyFailed: Event::Fetched(Err(FetchFailure { class: FailureClass::Key, .. })),
        FetchRefused: Event::Fetched(Err(FetchFailure { class: FailureClass::Refused, .. })),
        ClockNotSet: Event::Fetched(Err(FetchFailure { class: FailureClass::ClockNotSet, .. })),
        WrongPin: Event::Fetched(Err(FetchFailure { class: FailureClass::WrongPin, .. })),
        ProbedEnvironment: Event::Probed(Ok(Rotation::Restart)),
        ProbedProcess: Event::Probed(Ok(Rotation::Refresh)),
        ProbeFailed: Event::Probed(Err(_)),
        Started: Event::Started(Ok(())),
        StartFailed: Event::Started(Err(_)),
        Exited: Event::Exited(_),
        Synced: Event::Synced(_, Ok(_)),
        SyncWithoutSocket: Event::Synced(_, Err(SyncFailure::NoSocket)),
        SyncCorrupt: Event::Synced(_, Err(SyncFailure::StateCorrupt(_))),
        BeginningMissed: Event::Synced(_, Err(SyncFailure::BeginningMissed)),
        SessionEnded: Event::Synced(_, Err(SyncFailure::SessionEnded(_))),
        SyncFailed: Event::Synced(_, Err(SyncFailure::Failed(_))),
        Greeted: Event::Greeted,
        Listed: Event::Listed(_),
        ResetOnOneWal: Event::StateReset(_, Ok(true)),
        ResetOnAnotherWal: Event::StateReset(_, Ok(false)),
        ResetFailed: Event::StateReset(_, Err(_)),
        Surveyed: Event::Surveyed(_, Ok(_)),
        SurveyFailed: Event::Surveyed(_, Err(_)),
        WalEmptied: Event::WalEmptied(_, Ok(())),
        WalStays: Event::WalEmptied(_, Err(_)),
        Row: Event::Row(_, Ok(_)),
        RowRefused: Event::Row(_, Err(_)),
        LastCommit: Event::LastCommit(_, Some(_)),
        NoLastCommit: Event::LastCommit(_, None),
        DatabaseMissing: Event::DatabaseMissing(_),
        ReplicaFound: Event::Looked(_, Ok(true)),
        NoReplicaFound: Event::Looked(_, Ok(false)),
        LookFailed: Event::Looked(_, Err(_)),
        LookedAhead: Event::LookedAhead(_, Ok(Some(_))),
        NothingAhead: Event::LookedAhead(_, Ok(None)),
        LookAheadFailed: Event::LookedAhead(_, Err(_)),
        PlannedAhead: Event::Planned(_, Ok(Listing { stranger: Some(Stranger::Ahead { .. }), .. })),
        PlannedDiffering: Event::Planned(_, Ok(Listing { stranger: Some(Stranger::Differing { .. }), .. })),
        PlannedWhole: Event::Planned(_, Ok(Listing { chain: Chain::Whole(_), .. })),
        PlannedNothing: Event::Planned(_, Ok(Listing { chain: Chain::Nothing, .. })),
        PlannedHole: Event::Planned(_, Ok(Listing { chain: Chain::Hole { .. }, .. })),
        PlannedAltered: Event::Planned(_, Ok(Listing { chain: Chain::Altered { .. }, .. })),
        PlansNothing: Event::Planned(_, Err(PlanFailure::Unsupported)),
        PlanFailed: Event::Planned(_, Err(PlanFailure::Failed(_))),
        VerifiedHolding: Event::Verified(_, Ok(Verified { holds: true, .. })),
        VerifiedDiffering: Event::Verified(_, Ok(Verified { transaction: Some(_), .. })),
        VerifiedUnreadable: Event::Verified(_, Ok(Verified { transaction: None, .. })),
        NotVerifiedOverMobileLink: Event::Verified(_, Err(NotVerified::Metered(_))),
        VerifyFailed: Event::Verified(_, Err(NotVerified::Failed(_))),
        Complained: Event::Complained,
        MeasuredAtRest: Event::Measured(Ok(Sent { queued: 0, .. })),
        MeasuredUpload: Event::Measured(Ok(_)),
        NotMeasured: Event::Measured(Err(_)),
        SnapshotMade: Event::Snapshotted(_, Ok(())),
        SnapshotFailed: Event::Snapshotted(_, Err(_)),
        GuardTaken: Event::GuardTaken(_, Ok(())),
        GuardRefused: Event::GuardTaken(_, Err(_)),
        WalTooLarge: Event::WalTooLarge(_),
        NetworkChanged: Event::NetworkChanged,
        NetworkBack: Event::NetworkBack,
        Metered: Event::Metered(true),
        MeteredNoMore: Event::Metered(false),
        Paused: Event::PauseWanted(true),
        Resumed: Event::PauseWanted(false),
        ClockStepped: Event::ClockStepped,
        Understood: Event::Understood(Ok(_)),
        NotUnderstood: Event::Understood(Err(_)),
        Reloaded: Event::Reloaded(_),
        Inherited: Event::Inherited(_, _),
        DifferedBefore: Event::Recalled(_, Earlier { differs: true, .. }),
        UnrestorableBefore: Event::Recalled(_, Earlier { is_unrestorable: true, .. }),
        NothingRecalled: Event::Recalled(_, Earlier { debt: Debt::Unknown, .. }),
        NothingOwed: Event::Recalled(_, Earlier { debt: Debt::Nothing, .. }),
        RowOwed: Event::Recalled(_, Earlier { debt: Debt::Row(_), begins_anew: false, .. }),
        BrokenReplica: Event::Recalled(_, Earlier { begins_anew: true, .. }),
        SyncWanted: Event::SyncWanted,
        Terminate: Event::Terminate,
    }
}

kinds! {
    /// Actions.
    ActionKind of Action {
        Fetch: Action::Fetch,
        KillFetch: Action::KillFetch,
        AbandonFetch: Action::AbandonFetch,
        Probe: Action::Probe,
        Understand: Action::Understand,
        Survey: Action::Survey(_),
        StartWithEnvironment: Action::Start(Rotation::Restart),
        StartWithProcess: Action::Start(Rotation::Refresh),
        AbandonStart: Action::AbandonStart,
        Terminate: Action::Terminate,
        Kill: Action::Kill,
        Sync: Action::Sync(_),
        Greet: Action::Greet,
        List: Action::List,
        ResetState: Action::ResetState(_),
        EmptyWal: Action::EmptyWal(_),
        RememberDifference: Action::Remember(_, Legacy { differs: true, .. }),
        RememberUnrestorable: Action::Remember(_, Legacy { is_unrestorable: true, .. }),
        RememberBroken: Action::Remember(_, Legacy { begins_anew: true, .. }),
        RememberUnproved: Action::Remember(_, Legacy { unproved_since: Some(_), .. }),
        RememberProved: Action::Remember(_, Legacy { unproved_since: None, .. }),
        WriteRow: Action::WriteRow(_),
        AskRowBefore: Action::AskRowBefore(..),
        LookForCommit: Action::LookForCommit(_),
        Recall: Action::Recall(_),
        LookForReplica: Action::LookForReplica(_),
        AbandonLook: Action::AbandonLook(_),
        LookAhead: Action::LookAhead(_),
        AbandonLookAhead: Action::AbandonLookAhead(_),
        WriteFirstRow: Action::WriteFirstRow(_),
        PlanRestore: Action::PlanRestore(_),
        AbandonPlan: Action::AbandonPlan(_),
        Verify: Action::Verify(_),
        AbandonVerify: Action::AbandonVerify(_),
        MeasureUpload: Action::MeasureUpload,
        MakeSnapshot: Action::MakeSnapshot(..),
        Prune: Action::Prune(_),
        TakeGuard: Action::TakeGuard(_),
        ReleaseGuard: Action::ReleaseGuard(_),
        AbandonGuard: Action::AbandonGuard(_),
        Log: Action::Log(..),
        Exit: Action::Exit,
    }
}

kinds! {
    /// What Litestream was about when edgerepl was told to end.
    EndedWhile of Activity {
        WaitingForCredentials: Activity::WaitingForCredentials,
        WaitingToRestart: Activity::WaitingToRestart,
        Starting: Activity::Starting,
        CatchingUp: Activity::CatchingUp,
        Replicating: Activity::Replicating,
        // Whoever has stopped it ends in the same turn.
        Stopping: Activity::Stopping | Activity::Stopped,
        Resetting: Activity::Resetting,
    }
}

/// What happens in the world, whether the agent is told or not.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Happening {
    Death,
    Hang,
    PowerCut,
    LostDisk,
    ClockStep,
    Sleep,
    /// Somebody's hand in Litestream's files, and a replica that it made wrong.
    Wound,
    WrongReplica,
    Lie,
    /// The WAL was reset under a Litestream that had not read it all.
    WalReset,
    /// And the one that runs next would not notice.
    WalPassedOver,
    /// The same, after its files were looked at.
    WalPassedOverLate,
    DatabaseMade,
    DatabaseRestored,
    OtherDatabase,
    OtherInterval,
    RowsOff,
    OtherRotation,
    OtherPace,
    PlansOff,
    OtherVerifyPace,
    VerifiesOff,
    Unlisted,
    EndedWhileFetching,
    EndedWhileLooking,
    Killed,
    StartedAgain,
    /// Objects are gone from the bucket or altered, once or again and again, or all is as it was before.
    ObjectsLost,
    DeletingRule,
    RolledBack,
    /// An object of the same size holds something else.
    Garbled,
    ListsRefused,
    StrangerCame,
    StrangerWent,
    PlanHung,
    VerifyHung,
    CompactionRace,
    BucketMended,
    /// An upload over a slow line: begun, ended, and ended by somebody before its end; or one that stands still.
    UploadBegan,
    UploadEnded,
    UploadCut,
    UploadStands,
}

impl Happening {
    const ALL: &'static [Self] = &[
        Self::Death,
        Self::Hang,
        Self::PowerCut,
        Self::LostDisk,
        Self::ClockStep,
        Self::Sleep,
        Self::Wound,
        Self::WrongReplica,
        Self::Lie,
        Self::WalReset,
        Self::WalPassedOver,
        Self::WalPassedOverLate,
        Self::DatabaseMade,
        Self::DatabaseRestored,
        Self::OtherDatabase,
        Self::OtherInterval,
        Self::RowsOff,
        Self::OtherRotation,
        Self::OtherPace,
        Self::PlansOff,
        Self::OtherVerifyPace,
        Self::VerifiesOff,
        Self::Unlisted,
        Self::EndedWhileFetching,
        Self::EndedWhileLooking,
        Self::Killed,
        Self::StartedAgain,
        Self::ObjectsLost,
        Self::DeletingRule,
        Self::RolledBack,
        Self::Garbled,
        Self::ListsRefused,
        Self::StrangerCame,
        Self::StrangerWent,
        Self::PlanHung,
        Self::VerifyHung,
        Self::CompactionRace,
        Self::BucketMended,
        Self::UploadBegan,
        Self::UploadEnded,
        Self::UploadCut,
        Self::UploadStands,
    ];
}

/// How often each kind came.
#[derive(Clone, Debug)]
pub(crate) struct Coverage {
    events: [u64; EventKind::ALL.len()],
    actions: [u64; ActionKind::ALL.len()],
    ends: [u64; EndedWhile::ALL.len()],
    happenings: [u64; Happening::ALL.len()],
}

impl Coverage {
    pub(crate) fn new() -> Self {
        Self {
            events: [0; _],
            actions: [0; _],
            ends: [0; _],
            happenings: [0; _],
        }
    }

    pub(crate) fn event(&mut self, event: &Event) {
        self.events[EventKind::of(event) as usize] += 1;
    }

    pub(crate) fn action(&mut self, action: &Action) {
        self.actions[ActionKind::of(action) as usize] += 1;
    }

    pub(crate) fn ended_while(&mut self, activity: Activity) {
        self.ends[EndedWhile::of(&activity) as usize] += 1;
    }

    pub(crate) fn happened(&mut self, what: Happening) {
        self.happenings[what as usize] += 1;
    }

    /// How many events were handled.
    pub(crate) fn handled(&self) -> u64 {
        self.events.iter().sum()
    }

    /// How often Litestream was started, or given newer credentials.
    pub(crate) fn grants(&self) -> u64 {
        self.events[EventKind::Granted as usize]
    }

    /// The kinds that never came.
    pub(crate) fn missing(&self) -> Vec<String> {
        let kinds = self.kinds();
        let never = kinds.filter(|(_, times)| *times == 0);
        never.map(|(kind, _)| kind).collect()
    }

    fn kinds(&self) -> impl Iterator<Item = (String, u64)> {
        named("event", EventKind::ALL, &self.events)
            .chain(named("action", ActionKind::ALL, &self.actions))
            .chain(named("ended while", EndedWhile::ALL, &self.ends))
            .chain(named("world", Happening::ALL, &self.happenings))
    }
}

impl AddAssign<&Self> for Coverage {
    fn add_assign(&mut self, other: &Self) {
        for (all, more) in [
            (&mut self.events[..], &other.events[..]),
            (&mut self.actions, &other.actions),
            (&mut self.ends, &other.ends),
            (&mut self.happenings, &other.happenings),
        ] {
            for (all, more) in all.iter_mut().zip(more) {
                *all += more;
            }
        }
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (kind, times)) in self.kinds().enumerate() {
            let separator = if number % 3 == 2 { "\n" } else { "" };
            write!(f, "  {kind:<36}{times:>12}{separator}")?;
        }
        Ok(())
    }
}

fn named<K: Copy + fmt::Debug>(
    of: &str,
    kinds: &[K],
    times: &[u64],
) -> impl Iterator<Item = (String, u64)> {
    let kinds = kinds.iter().zip(times);
    kinds.map(move |(kind, times)| (format!("{of} {kind:?}"), *times))
}
