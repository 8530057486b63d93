//! How a machine gets its place in the registry and keeps it: what to do next, given what happened. PURE.
//!
//! ```text
//!  saved lease ──▶ Reviving ──alive──▶ Claiming ──ours──▶ Holding ──stop──▶ Leaving ──▶ finished
//!                     │ gone              ▲  │ held by another  │ lease gone: Granting
//!  no lease ──────▶ Granting ──granted────┘  ▼                  │ object gone: Claiming
//!                     ▲                   Watching ◀────────────┘ held by another
//!                     └────── free ──────────┘
//! ```
//!
//! The lease owns the object. One request is under way at a time; a failed one is followed by a wait and then by
//! the safest question: does our lease live? So an unanswered write is looked at before anything is written again.

use std::time::Duration;

use client::v3::LeaseId;
use daemon::backoff::Backoff;

use crate::registry::Holder;

/// First wait after a failed request: an etcd that changes its leader is back within a second.
const RETRY_MIN: Duration = Duration::from_millis(250);
/// Longest wait after failed requests. Every machine of a cluster loses its store at once, and each asks no more
/// than this often; yet all are back soon after it, also at a boot where fleetd comes before its store.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How often to look whether another's object is gone: one read a second, from one machine, and never for long.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Beats per lifetime of the lease: two may fail before it ends.
const BEATS_PER_TTL: u32 = 3;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// fleetd starts; the last run may have left a lease.
    Started {
        /// What it left.
        saved: Option<LeaseId>,
    },
    /// A lease was granted.
    Granted {
        /// Its id.
        lease: LeaseId,
        /// How long it lives without a beat.
        ttl: Duration,
    },
    /// The lease lives.
    Alive {
        /// How long from now on.
        ttl: Duration,
    },
    /// The lease is gone, or was ended as we asked.
    LeaseGone,
    /// Somebody has the object, perhaps we.
    Held(Holder),
    /// Nobody has the object.
    Free,
    /// The store did not answer, or nobody knows what it did.
    StoreLost {
        /// Why, for people.
        reason: String,
    },
    /// The wait is over.
    Waited,
    /// What the machine says about itself has changed.
    ObjectChanged,
    /// fleetd is to stop.
    Stop,
}

/// What to do beside the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keep this lease's id for a restart.
    Save(LeaseId),
    /// The kept id is worth nothing any more.
    Forget,
    /// Tell whoever asks how things stand.
    Report(Status),
}

/// The one thing to do next, whose outcome is the next input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask for a lease.
    Grant,
    /// Keep the lease alive.
    Beat(LeaseId),
    /// Write the object under the lease, if it is free or ours.
    Claim(LeaseId),
    /// See who has the object.
    Look,
    /// End the lease.
    Revoke(LeaseId),
    /// Wait.
    Wait(Duration),
    /// Nothing: we are done.
    Finish,
}

/// How the machine stands in the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// Not yet there.
    Registering,
    /// There, under this lease.
    Registered(LeaseId),
    /// The store does not answer.
    StoreLost {
        /// Why, for people.
        reason: String,
        /// Whether we were there before, and so still are until the lease ends.
        was_registered: bool,
    },
    /// Another has our id: a clone of this machine, or our own last boot.
    Foreign(Holder),
    /// On the way out.
    Leaving,
}

/// What follows from an input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// In this order, before the next request.
    pub effects: Vec<Effect>,
    /// The next request.
    pub next: Next,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Seeing whether the saved lease lives.
    Reviving,
    /// Without a lease.
    Granting,
    /// With a lease, and the object perhaps written.
    Claiming,
    /// With a lease and the object under it, when we last looked.
    Holding,
    /// Somebody else has the object.
    Watching,
    /// Ending the lease for good.
    Leaving,
}

/// The registration of one machine.
#[derive(Clone, Debug)]
pub struct Registration {
    phase: Phase,
    /// The lease we may have things under. Some while claiming, holding and leaving.
    lease: Option<LeaseId>,
    ttl: Duration,
    backoff: Backoff,
    status: Status,
}

impl Registration {
    /// A machine that is not registered. `ttl` is how long it asks to be missed; the seed spreads its retries.
    pub fn new(ttl: Duration, seed: u64) -> Self {
        let backoff = Backoff::new(RETRY_MIN, RETRY_MAX, seed);
        Self {
            phase: Phase::Granting,
            lease: None,
            ttl,
            backoff,
            status: Status::Registering,
        }
    }

    /// What to do about this.
    ///
    /// # Panics
    /// If the input answers a request that was not made.
    pub fn handle(&mut self, input: Input) -> Turn {
        let mut effects = Vec::new();
        if self.is_answer(&input) {
            self.backoff.reset();
        }
        let next = match input {
            Input::Started { saved } => self.start(saved),
            Input::Granted { lease, ttl } => self.granted(lease, ttl, &mut effects),
            Input::Alive { ttl } => self.alive(ttl),
            Input::LeaseGone => self.lease_gone(&mut effects),
            Input::Held(holder) if holder.lease.is_some() && holder.lease == self.lease => {
                self.ours(&mut effects)
            }
            Input::Held(holder) => self.foreign(holder, &mut effects),
            Input::Free => self.free(),
            Input::StoreLost { reason } => self.store_lost(reason, &mut effects),
            Input::Waited => self.resume(),
            Input::ObjectChanged => self.object_changed(),
            Input::Stop => self.stop(&mut effects),
        };
        self.check(&next);
        Turn { effects, next }
    }

    fn is_answer(&self, input: &Input) -> bool {
        matches!(
            input,
            Input::Granted { .. } | Input::Alive { .. } | Input::LeaseGone | Input::Held(_) | Input::Free
        )
    }

    fn start(&mut self, saved: Option<LeaseId>) -> Next {
        self.lease = saved;
        self.phase = if saved.is_some() {
            Phase::Reviving
        } else {
            Phase::Granting
        };
        self.resume()
    }

    fn granted(&mut self, lease: LeaseId, ttl: Duration, effects: &mut Vec<Effect>) -> Next {
        assert!(self.lease.is_none(), "a second lease was asked for");
        self.lease = Some(lease);
        self.ttl = ttl;
        self.phase = Phase::Claiming;
        // Before the object is written: a crash in between must leave a lease that the next run finds.
        effects.push(Effect::Save(lease));
        Next::Claim(lease)
    }

    fn alive(&mut self, ttl: Duration) -> Next {
        let lease = self.lease.expect("only a lease that we have is kept alive");
        self.ttl = ttl;
        match self.phase {
            // Somebody may have deleted the object: a lease that lives does not prove that it stands.
            Phase::Holding => Next::Look,
            _ => {
                self.phase = Phase::Claiming;
                Next::Claim(lease)
            }
        }
    }

    fn lease_gone(&mut self, effects: &mut Vec<Effect>) -> Next {
        self.lease = None;
        effects.push(Effect::Forget);
        match self.phase {
            Phase::Leaving => Next::Finish,
            Phase::Watching => Next::Wait(LOOK_INTERVAL),
            _ => {
                self.phase = Phase::Granting;
                self.report(Status::Registering, effects);
                Next::Grant
            }
        }
    }

    fn ours(&mut self, effects: &mut Vec<Effect>) -> Next {
        let lease = self.lease.expect("an object that is ours stands under our lease");
        self.phase = Phase::Holding;
        self.report(Status::Registered(lease), effects);
        Next::Wait(self.ttl / BEATS_PER_TTL)
    }

    fn foreign(&mut self, holder: Holder, effects: &mut Vec<Effect>) -> Next {
        self.phase = Phase::Watching;
        self.report(Status::Foreign(holder), effects);
        match self.lease {
            // Nothing may stand under a lease of a machine that is not the one with this id.
            Some(lease) => Next::Revoke(lease),
            None => Next::Wait(LOOK_INTERVAL),
        }
    }

    fn free(&mut self) -> Next {
        match self.lease {
            Some(lease) => {
                self.phase = Phase::Claiming;
                Next::Claim(lease)
            }
            None => {
                self.phase = Phase::Granting;
                Next::Grant
            }
        }
    }

    fn store_lost(&mut self, reason: String, effects: &mut Vec<Effect>) -> Next {
        if self.phase == Phase::Leaving {
            // The kept id lets the next run go on from here; else the lease ends by itself.
            return Next::Finish;
        }
        let was_registered = self.phase == Phase::Holding;
        self.report(
            Status::StoreLost {
                reason,
                was_registered,
            },
            effects,
        );
        Next::Wait(self.backoff.next_wait())
    }

    fn object_changed(&mut self) -> Next {
        match (self.phase, self.lease) {
            (Phase::Holding, Some(lease)) => Next::Claim(lease),
            _ => self.resume(),
        }
    }

    fn stop(&mut self, effects: &mut Vec<Effect>) -> Next {
        self.phase = Phase::Leaving;
        self.report(Status::Leaving, effects);
        self.lease.map_or(Next::Finish, Next::Revoke)
    }

    /// The question to go on with, from what we have.
    fn resume(&self) -> Next {
        match (self.phase, self.lease) {
            (Phase::Watching, None) => Next::Look,
            (Phase::Watching | Phase::Leaving, Some(lease)) => Next::Revoke(lease),
            (Phase::Leaving, None) => Next::Finish,
            (Phase::Reviving | Phase::Granting | Phase::Claiming | Phase::Holding, Some(lease)) => {
                Next::Beat(lease)
            }
            (Phase::Reviving | Phase::Granting | Phase::Claiming | Phase::Holding, None) => Next::Grant,
        }
    }

    fn report(&mut self, status: Status, effects: &mut Vec<Effect>) {
        if self.status != status {
            self.status = status.clone();
            effects.push(Effect::Report(status));
        }
    }

    /// What must hold after every turn.
    fn check(&self, next: &Next) {
        match next {
            Next::Beat(lease) | Next::Claim(lease) | Next::Revoke(lease) => {
                assert!(
                    self.lease == Some(*lease),
                    "a request for lease {lease}, which is not ours"
                );
            }
            Next::Grant => assert!(self.lease.is_none(), "a lease is asked for while we have one"),
            Next::Look | Next::Wait(_) | Next::Finish => {}
        }
        if matches!(next, Next::Claim(_)) {
            assert!(self.phase != Phase::Leaving, "nothing is written on the way out");
        }
        if self.phase == Phase::Holding {
            assert!(self.lease.is_some(), "an object is held under a lease");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn id(number: i64) -> LeaseId {
        LeaseId::new(number).unwrap()
    }

    fn holder(lease: i64) -> Holder {
        Holder {
            lease: LeaseId::new(lease),
            public_ip: "10.0.0.9".to_owned(),
        }
    }

    fn lost() -> Input {
        Input::StoreLost {
            reason: "refused".to_owned(),
        }
    }

    fn fresh() -> Registration {
        Registration::new(TTL, 1)
    }

    /// A registration that holds its object under lease 1.
    fn holding() -> Registration {
        let mut registration = fresh();
        registration.handle(Input::Started { saved: None });
        registration.handle(Input::Granted {
            lease: id(1),
            ttl: TTL,
        });
        registration.handle(Input::Held(holder(1)));
        registration
    }

    fn watching() -> Registration {
        let mut registration = fresh();
        registration.handle(Input::Started { saved: None });
        registration.handle(Input::Granted {
            lease: id(1),
            ttl: TTL,
        });
        registration.handle(Input::Held(holder(99)));
        registration.handle(Input::LeaseGone);
        registration
    }

    #[track_caller]
    fn check(registration: &mut Registration, input: Input, effects: &[Effect], next: &Next) {
        let what = format!("{input:?}");
        let Turn {
            effects: given,
            next: done,
        } = registration.handle(input);
        assert_eq!((given.as_slice(), &done), (effects, next), "after {what}");
    }

    #[test]
    fn a_first_start_asks_for_a_lease_keeps_its_id_and_then_claims() {
        let mut registration = fresh();
        check(
            &mut registration,
            Input::Started { saved: None },
            &[],
            &Next::Grant,
        );
        check(
            &mut registration,
            Input::Granted {
                lease: id(1),
                ttl: TTL,
            },
            &[Effect::Save(id(1))],
            &Next::Claim(id(1)),
        );
        let registered = [Effect::Report(Status::Registered(id(1)))];
        check(
            &mut registration,
            Input::Held(holder(1)),
            &registered,
            &Next::Wait(TTL / 3),
        );
    }

    #[test]
    fn every_beat_also_looks_whether_the_object_stands() {
        let mut registration = holding();
        check(&mut registration, Input::Waited, &[], &Next::Beat(id(1)));
        check(&mut registration, Input::Alive { ttl: TTL }, &[], &Next::Look);
        check(
            &mut registration,
            Input::Held(holder(1)),
            &[],
            &Next::Wait(TTL / 3),
        );
        check(&mut registration, Input::Waited, &[], &Next::Beat(id(1)));
        check(&mut registration, Input::Alive { ttl: TTL }, &[], &Next::Look);
        check(&mut registration, Input::Free, &[], &Next::Claim(id(1)));
    }

    #[test]
    fn a_restart_revives_the_saved_lease_and_claims_with_it() {
        let mut registration = fresh();
        check(
            &mut registration,
            Input::Started { saved: Some(id(5)) },
            &[],
            &Next::Beat(id(5)),
        );
        check(
            &mut registration,
            Input::Alive { ttl: TTL },
            &[],
            &Next::Claim(id(5)),
        );
        let registered = [Effect::Report(Status::Registered(id(5)))];
        check(
            &mut registration,
            Input::Held(holder(5)),
            &registered,
            &Next::Wait(TTL / 3),
        );
    }

    #[test]
    fn a_saved_lease_that_is_gone_is_forgotten_and_replaced() {
        let mut registration = fresh();
        registration.handle(Input::Started { saved: Some(id(5)) });
        check(
            &mut registration,
            Input::LeaseGone,
            &[Effect::Forget],
            &Next::Grant,
        );
    }

    #[test]
    fn a_lost_lease_is_replaced_at_once() {
        let mut registration = holding();
        registration.handle(Input::Waited);
        let effects = [Effect::Forget, Effect::Report(Status::Registering)];
        check(&mut registration, Input::LeaseGone, &effects, &Next::Grant);
        // Also when it ended between two requests.
        let mut registration = fresh();
        registration.handle(Input::Started { saved: Some(id(5)) });
        registration.handle(Input::Alive { ttl: TTL });
        check(
            &mut registration,
            Input::LeaseGone,
            &[Effect::Forget],
            &Next::Grant,
        );
    }

    #[test]
    fn a_lost_store_is_asked_again_ever_slower_and_first_about_our_lease() {
        let mut registration = holding();
        registration.handle(Input::Waited);
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let Next::Wait(wait) = registration.handle(lost()).next else {
                panic!("no wait")
            };
            assert!(wait >= RETRY_MIN / 2 && wait <= RETRY_MAX, "{wait:?}");
            longest = longest.max(wait);
            check(&mut registration, Input::Waited, &[], &Next::Beat(id(1)));
        }
        assert!(longest > RETRY_MAX / 2, "the waits grow: {longest:?}");
        check(&mut registration, Input::Alive { ttl: TTL }, &[], &Next::Look);
        let back = [Effect::Report(Status::Registered(id(1)))];
        check(
            &mut registration,
            Input::Held(holder(1)),
            &back,
            &Next::Wait(TTL / 3),
        );
        registration.handle(Input::Waited);
        let Next::Wait(wait) = registration.handle(lost()).next else {
            panic!("no wait")
        };
        assert!(
            wait <= RETRY_MIN,
            "an answer makes the next wait short again: {wait:?}"
        );
    }

    #[test]
    fn losing_the_store_says_whether_we_were_registered() {
        let status = |was_registered| Status::StoreLost {
            reason: "refused".to_owned(),
            was_registered,
        };
        let mut registration = fresh();
        registration.handle(Input::Started { saved: None });
        assert_eq!(
            registration.handle(lost()).effects,
            [Effect::Report(status(false))]
        );
        let mut registration = holding();
        registration.handle(Input::Waited);
        assert_eq!(
            registration.handle(lost()).effects,
            [Effect::Report(status(true))]
        );
    }

    #[test]
    fn a_claim_without_an_answer_is_followed_by_a_look_at_the_lease_and_claimed_again() {
        let mut registration = fresh();
        registration.handle(Input::Started { saved: None });
        registration.handle(Input::Granted {
            lease: id(1),
            ttl: TTL,
        });
        registration.handle(lost());
        check(&mut registration, Input::Waited, &[], &Next::Beat(id(1)));
        check(
            &mut registration,
            Input::Alive { ttl: TTL },
            &[],
            &Next::Claim(id(1)),
        );
    }

    #[test]
    fn anothers_object_ends_our_lease_and_is_watched_until_it_is_gone() {
        let mut registration = fresh();
        registration.handle(Input::Started { saved: None });
        registration.handle(Input::Granted {
            lease: id(1),
            ttl: TTL,
        });
        let foreign = [Effect::Report(Status::Foreign(holder(99)))];
        check(
            &mut registration,
            Input::Held(holder(99)),
            &foreign,
            &Next::Revoke(id(1)),
        );
        check(
            &mut registration,
            Input::LeaseGone,
            &[Effect::Forget],
            &Next::Wait(LOOK_INTERVAL),
        );
        check(&mut registration, Input::Waited, &[], &Next::Look);
        check(
            &mut registration,
            Input::Held(holder(99)),
            &[],
            &Next::Wait(LOOK_INTERVAL),
        );
        check(&mut registration, Input::Waited, &[], &Next::Look);
        check(&mut registration, Input::Free, &[], &Next::Grant);
    }

    #[test]
    fn an_object_without_a_lease_is_never_ours() {
        let mut registration = watching();
        registration.handle(Input::Waited);
        let unleased = Holder {
            lease: None,
            public_ip: String::new(),
        };
        let turn = registration.handle(Input::Held(unleased.clone()));
        assert_eq!(turn.effects, [Effect::Report(Status::Foreign(unleased))]);
        assert_eq!(turn.next, Next::Wait(LOOK_INTERVAL));
    }

    #[test]
    fn a_clone_that_took_the_object_while_we_were_away_keeps_it() {
        let mut registration = holding();
        registration.handle(Input::Waited);
        registration.handle(Input::Alive { ttl: TTL });
        let foreign = [Effect::Report(Status::Foreign(holder(99)))];
        check(
            &mut registration,
            Input::Held(holder(99)),
            &foreign,
            &Next::Revoke(id(1)),
        );
        // The store fails in between: the lease is still ended first.
        assert!(matches!(registration.handle(lost()).next, Next::Wait(_)));
        check(&mut registration, Input::Waited, &[], &Next::Revoke(id(1)));
    }

    #[test]
    fn a_change_of_the_object_is_written_at_once_when_it_is_ours() {
        check(&mut holding(), Input::ObjectChanged, &[], &Next::Claim(id(1)));
        check(&mut watching(), Input::ObjectChanged, &[], &Next::Look);
        let mut unregistered = fresh();
        unregistered.handle(Input::Started { saved: None });
        unregistered.handle(lost());
        check(&mut unregistered, Input::ObjectChanged, &[], &Next::Grant);
    }

    #[test]
    fn a_stop_ends_the_lease_and_forgets_it() {
        let mut registration = holding();
        let leaving = [Effect::Report(Status::Leaving)];
        check(&mut registration, Input::Stop, &leaving, &Next::Revoke(id(1)));
        check(
            &mut registration,
            Input::LeaseGone,
            &[Effect::Forget],
            &Next::Finish,
        );
        check(&mut watching(), Input::Stop, &leaving, &Next::Finish);
    }

    #[test]
    fn a_stop_without_a_store_keeps_the_lease_for_the_next_run() {
        let mut registration = holding();
        registration.handle(Input::Stop);
        check(&mut registration, lost(), &[], &Next::Finish);
    }

    /// Two agents of one id and one store, in every order that a seed gives: never both hold the object.
    #[test]
    fn two_agents_with_one_id_never_both_hold_the_object() {
        for seed in 0..300 {
            Pair::new(seed).play(400);
        }
    }

    /// A store with one object, and two agents whose requests it answers or loses.
    struct Pair {
        random: u64,
        agents: [(Registration, Next); 2],
        leases: Vec<LeaseId>,
        last_lease: i64,
        object: Option<LeaseId>,
        handovers: usize,
    }

    impl Pair {
        fn new(seed: u64) -> Self {
            let agent = |seed| {
                let mut registration = Registration::new(TTL, seed);
                let next = registration.handle(Input::Started { saved: None }).next;
                (registration, next)
            };
            let agents = [agent(seed), agent(seed + 1)];
            Self {
                random: seed,
                agents,
                leases: Vec::new(),
                last_lease: 0,
                object: None,
                handovers: 0,
            }
        }

        fn below(&mut self, bound: u64) -> u64 {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.random >> 33) % bound
        }

        fn play(&mut self, steps: usize) {
            for _ in 0..steps {
                match self.below(12) {
                    0 => self.end_a_lease(),
                    1 => self.object = None,
                    _ => self.step(),
                }
                let holding: Vec<LeaseId> = self
                    .agents
                    .iter()
                    .filter_map(|(agent, _)| self.stands(agent))
                    .collect();
                assert!(holding.len() <= 1, "both hold the object: {holding:?}");
            }
            assert!(self.last_lease > 0);
        }

        /// The lease under which this agent believes in its object, if the store agrees that it lives.
        fn stands(&self, agent: &Registration) -> Option<LeaseId> {
            let believes = agent.phase == Phase::Holding;
            agent
                .lease
                .filter(|lease| believes && self.leases.contains(lease) && self.object == Some(*lease))
        }

        fn end_a_lease(&mut self) {
            if self.leases.is_empty() {
                return;
            }
            let position = usize::try_from(self.below(self.leases.len() as u64)).unwrap();
            let lease = self.leases.remove(position);
            self.object = self.object.filter(|under| *under != lease);
        }

        fn step(&mut self) {
            let who = usize::from(self.below(2) == 1);
            // Done and answered, done and not answered, or not even done.
            let (is_done, is_answered) = [(true, true), (true, true), (true, false), (false, false)]
                [usize::try_from(self.below(4)).unwrap()];
            let next = self.agents[who].1.clone();
            let answer = if is_done { self.carry_out(&next) } else { None };
            let silent = matches!(next, Next::Wait(_));
            let input = match answer {
                _ if silent => Input::Waited,
                Some(answer) if is_answered => answer,
                _ => lost(),
            };
            self.agents[who].1 = self.agents[who].0.handle(input).next;
        }

        fn carry_out(&mut self, next: &Next) -> Option<Input> {
            Some(match *next {
                Next::Grant => {
                    self.last_lease += 1;
                    self.leases.push(id(self.last_lease));
                    Input::Granted {
                        lease: id(self.last_lease),
                        ttl: TTL,
                    }
                }
                Next::Beat(lease) if self.leases.contains(&lease) => Input::Alive { ttl: TTL },
                Next::Claim(lease) if self.leases.contains(&lease) => {
                    if self.object.is_none() {
                        self.object = Some(lease);
                        self.handovers += 1;
                    }
                    Input::Held(Holder {
                        lease: self.object,
                        public_ip: String::new(),
                    })
                }
                Next::Revoke(lease) => {
                    self.leases.retain(|each| *each != lease);
                    self.object = self.object.filter(|under| *under != lease);
                    Input::LeaseGone
                }
                Next::Beat(_) | Next::Claim(_) => Input::LeaseGone,
                Next::Look => match self.object {
                    Some(lease) => Input::Held(Holder {
                        lease: Some(lease),
                        public_ip: String::new(),
                    }),
                    None => Input::Free,
                },
                Next::Wait(_) | Next::Finish => return None,
            })
        }
    }
}
