//! Applying: the whole path of change. One function takes an entry to its work, one drives the work in slices,
//! and one makes everything that it wrote visible at once.

use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeResponse,
    PutRequest,
};
use proto::ids::Revision;
use proto::log::{Alarm, Expire, KeepAlive, MemberBoot, MemberChange, MemberUpdate, alarm};
use proto::time::Timestamp;

use crate::budget::Budget;
use crate::command::{self, Position};
use crate::digest::{Digest, Tag, unsigned};
use crate::lease::{self, Ending};
use crate::mvcc::Edit;
use crate::v2::expire::Expiry;
use crate::v2::{self, Action};
use crate::v3::{self, Refusal};
use crate::{Applied, Command, Entry, KeyWrite, LeaseRenewal, Outcome, Progress, Store};

/// How many records an entry's first slice touches at most; nearly all commands are done in it.
const FIRST_SLICE_RECORDS: usize = 1000;

/// The entry under way.
#[derive(Debug)]
pub(crate) struct Running {
    position: Position,
    edit: Edit,
    work: Work,
}

impl Running {
    /// What it wrote so far, unseen.
    pub(crate) fn writes(&self) -> impl Iterator<Item = &KeyWrite> {
        self.edit.all_writes()
    }
}

/// What there is to do for an entry; those that may touch many records remember how far they came.
#[derive(Debug)]
enum Work {
    Nothing,
    V2(v2::write::Write),
    Put(PutRequest),
    DeleteRange(v3::write::Delete),
    Txn(Box<v3::txn::Txn>),
    /// Refused before it began.
    Refused(Outcome),
    Compact(CompactionRequest),
    LeaseGrant(LeaseGrantRequest),
    LeaseRevoke(Ending),
    KeepAlive(KeepAlive),
    Expire(Expiring),
    /// Extends each lease after this one.
    TenureStart {
        after: Option<i64>,
    },
    MemberUpdate(MemberUpdate),
    MemberBoot(MemberBoot),
    MemberChange(Box<MemberChange>),
    Alarm(Alarm),
}

impl Store {
    /// Applies one committed entry. The whole path of change: nothing else writes.
    ///
    /// # Panics
    /// When the position is not the one after the last, or an entry is still under way.
    pub fn apply(&mut self, position: Position, entry: Entry) -> Progress {
        self.apply_slice(position, entry, FIRST_SLICE_RECORDS)
    }

    /// As [`Store::apply`], with a first slice of at most `records_max` records.
    ///
    /// # Panics
    /// As [`Store::apply`].
    pub fn apply_slice(&mut self, position: Position, entry: Entry, records_max: usize) -> Progress {
        assert!(
            self.running.is_none(),
            "entry {} is applied while another is under way",
            position.index
        );
        assert_eq!(
            position.index,
            self.position.index.next(),
            "the log is applied in order"
        );
        assert!(
            position.term >= self.position.term,
            "the term went back to {}",
            position.term
        );
        let stamp = command::stamp(&entry).map_or(self.stamp, |stamp| stamp.max(self.stamp));
        let mut digest = self.digest;
        digest.numbers(Tag::Entry, [position.index.get()]);
        let edit = Edit::new(stamp, self.keyspace.revision, self.keyspace.v2_index, digest);
        let work = self.begin(entry, stamp);
        self.advance(Running { position, edit, work }, records_max)
    }

    /// Goes on with the entry under way, touching at most `records_max` records.
    ///
    /// # Panics
    /// When no entry is under way.
    pub fn resume(&mut self, records_max: usize) -> Progress {
        let running = self.running.take().expect("an entry is under way");
        self.advance(*running, records_max)
    }

    fn advance(&mut self, mut running: Running, records_max: usize) -> Progress {
        let mut budget = Budget::new(records_max);
        let Some(outcome) = self.work(&mut running.work, &mut running.edit, &mut budget) else {
            self.running = Some(Box::new(running));
            return Progress::More;
        };
        Progress::Done(self.complete(running, outcome))
    }

    /// The work of an entry, from its command. Every command has its line here.
    fn begin(&self, entry: Entry, stamp: Timestamp) -> Work {
        let command = match entry {
            Entry::Empty => return Work::Nothing,
            Entry::Member(change) => return Work::MemberChange(change),
            Entry::Proposal(proposal) => proposal
                .command
                .expect("decoding refuses an entry without a command"),
        };
        match command {
            Command::V2(command) => Work::V2(v2::write::Write::new(command)),
            Command::Put(request) => Work::Put(request),
            Command::DeleteRange(request) => match v3::check::delete_range(&request) {
                Ok(()) => Work::DeleteRange(v3::write::Delete::new(request)),
                Err(refusal) => Work::Refused(Outcome::DeleteRange(Err(refusal))),
            },
            Command::Txn(request) => match v3::txn::Txn::new(request) {
                Ok(txn) => Work::Txn(Box::new(txn)),
                Err(refusal) => Work::Refused(Outcome::Txn(Err(refusal))),
            },
            Command::Compact(request) => Work::Compact(request),
            Command::LeaseGrant(request) => Work::LeaseGrant(request),
            Command::LeaseRevoke(request) => match self.keyspace.leases.get(request.id) {
                Some(_) => Work::LeaseRevoke(Ending::new(request.id, Action::Delete)),
                None => Work::Refused(Outcome::LeaseRevoke(Err(Refusal::LeaseNotFound))),
            },
            Command::KeepAlive(request) => Work::KeepAlive(request),
            Command::Expire(request) => Work::Expire(self.expiring(request, stamp)),
            Command::TenureStart(_) => Work::TenureStart { after: None },
            Command::MemberUpdate(update) => Work::MemberUpdate(update),
            Command::MemberBoot(boot) => Work::MemberBoot(boot),
            Command::Alarm(alarm) => Work::Alarm(alarm),
        }
    }

    /// Works on; the outcome once done, none = the budget ended first.
    fn work(&mut self, work: &mut Work, edit: &mut Edit, budget: &mut Budget) -> Option<Outcome> {
        let keyspace = &mut self.keyspace;
        let outcome = match work {
            Work::Nothing => Outcome::Done,
            Work::V2(write) => Outcome::V2(write.step(keyspace, edit, budget)?),
            Work::Put(request) => Outcome::Put(v3::write::put(keyspace, edit, request)),
            Work::DeleteRange(delete) => Outcome::DeleteRange(Ok(delete.step(keyspace, edit, budget)?)),
            Work::Txn(txn) => Outcome::Txn(txn.step(keyspace, edit, budget)?),
            Work::Refused(outcome) => std::mem::take(outcome),
            Work::Compact(request) => Outcome::Compact(self.compact(edit, request)),
            Work::LeaseGrant(request) => Outcome::LeaseGrant(self.grant(edit, request)),
            Work::LeaseRevoke(ending) => {
                if !ending.step(keyspace, edit, budget) {
                    return None;
                }
                Outcome::LeaseRevoke(Ok(LeaseRevokeResponse {
                    header: v3::header(edit.header_revision()),
                }))
            }
            Work::KeepAlive(request) => Outcome::KeepAlive(self.keep_alive(edit, request)),
            Work::Expire(expiring) => {
                if !expiring.step(self, edit, budget) {
                    return None;
                }
                Outcome::Done
            }
            Work::TenureStart { after } => {
                if !self.extend_leases(edit, after, budget) {
                    return None;
                }
                Outcome::Done
            }
            Work::MemberUpdate(update) => {
                self.members.update(update);
                fold_member(&mut edit.digest, update.id, &update.name, &update.peer_urls);
                Outcome::Done
            }
            Work::MemberBoot(boot) => {
                self.members.boot(boot);
                edit.digest.numbers(Tag::Member, [boot.id]);
                edit.digest.bytes(&boot.incarnation);
                Outcome::Done
            }
            Work::MemberChange(change) => self.change_member(edit, change),
            Work::Alarm(alarm) => self.set_alarm(edit, alarm),
        };
        Some(outcome)
    }

    /// Makes what the entry did visible, all at once.
    fn complete(&mut self, running: Running, outcome: Outcome) -> Applied {
        let Running {
            position, mut edit, ..
        } = running;
        edit.close_change();
        self.position = position;
        self.stamp = edit.stamp();
        self.digest = edit.digest;
        let changes = self.keyspace.publish(edit);
        Applied { outcome, changes }
    }

    fn compact(
        &mut self,
        edit: &mut Edit,
        request: &CompactionRequest,
    ) -> Result<CompactionResponse, Refusal> {
        let compacted = self.keyspace.compacted.map_or(-1, Revision::get);
        if request.revision <= compacted {
            return Err(Refusal::Compacted);
        }
        if request.revision > self.keyspace.revision.get() {
            return Err(Refusal::FutureRevision);
        }
        self.keyspace.compact(Revision::new(request.revision));
        edit.digest.numbers(Tag::Compacted, [unsigned(request.revision)]);
        Ok(CompactionResponse {
            header: v3::header(self.keyspace.revision),
        })
    }

    fn grant(&mut self, edit: &mut Edit, request: &LeaseGrantRequest) -> Result<LeaseGrantResponse, Refusal> {
        let LeaseGrantRequest { id, ttl } = *request;
        // The proposer draws an id when the client gave none; 0 is none.
        if id == 0 {
            return Err(Refusal::LeaseNotFound);
        }
        if ttl > lease::TTL_SECONDS_MAX {
            return Err(Refusal::LeaseTtlTooLarge);
        }
        if self.keyspace.leases.get(id).is_some() {
            return Err(Refusal::LeaseExists);
        }
        let ttl = ttl.max(lease::TTL_SECONDS_MIN);
        let expires_at = lease::end_of(ttl, edit.stamp());
        self.keyspace.leases.grant(id, ttl, expires_at);
        edit.digest.numbers(
            Tag::LeaseGranted,
            [unsigned(id), unsigned(ttl), expires_at.as_nanos()],
        );
        let header = v3::header(self.keyspace.revision);
        Ok(LeaseGrantResponse {
            header,
            id,
            ttl,
            error: String::new(),
        })
    }

    fn keep_alive(&mut self, edit: &mut Edit, request: &KeepAlive) -> Vec<LeaseRenewal> {
        let renew = |id: &i64| LeaseRenewal {
            id: *id,
            ttl: self.extend_lease(edit, *id).unwrap_or(0),
        };
        request.leases.iter().map(renew).collect()
    }

    fn extend_lease(&mut self, edit: &mut Edit, id: i64) -> Option<i64> {
        let (ttl, end) = self.keyspace.leases.extend(id, edit.stamp())?;
        edit.digest
            .numbers(Tag::LeaseExtended, [unsigned(id), end.as_nanos()]);
        Some(ttl)
    }

    /// Gives every lease its full time from the stamp (keyspace rules, section 3); false = the budget ended
    /// first. Seen before it is complete, it is a later end for some, and doing it again changes nothing.
    fn extend_leases(&mut self, edit: &mut Edit, after: &mut Option<i64>, budget: &mut Budget) -> bool {
        while let Some(id) = self.keyspace.leases.after(*after) {
            if !budget.take() {
                return false;
            }
            self.extend_lease(edit, id).expect("the lease was just found");
            *after = Some(id);
        }
        true
    }

    fn change_member(&mut self, edit: &mut Edit, change: &MemberChange) -> Outcome {
        let result = self.members.change(change);
        edit.digest.numbers(
            Tag::Member,
            [u64::from(change.action.unsigned_abs()), u64::from(result.is_ok())],
        );
        fold_member(&mut edit.digest, change.id, &change.name, &change.peer_urls);
        if let Ok(member) = &result
            && self.members.removed.contains(&member.id)
        {
            // Nobody is left who could clear them.
            self.alarms.retain(|(id, _)| *id != member.id.get());
        }
        Outcome::Member(result)
    }

    fn set_alarm(&mut self, edit: &mut Edit, alarm: &Alarm) -> Outcome {
        let item = (alarm.member, alarm.alarm);
        match alarm.action() {
            alarm::Action::Raise => self.alarms.insert(item),
            alarm::Action::Clear => self.alarms.remove(&item),
        };
        let numbers = [
            alarm.member,
            u64::from(alarm.alarm.unsigned_abs()),
            u64::from(alarm.action.unsigned_abs()),
        ];
        edit.digest.numbers(Tag::Alarm, numbers);
        Outcome::Done
    }

    /// What of an expiry is there to do, in the order of time: nodes before leases of the same instant.
    fn expiring(&self, request: Expire, stamp: Timestamp) -> Expiring {
        let mut ends: Vec<End> = Vec::with_capacity(request.nodes.len() + request.leases.len());
        for node in request.nodes {
            ends.push(End::Node(Timestamp::from_nanos(node.expires_at), node.path));
        }
        for id in request.leases {
            if let Some(lease) = self.keyspace.leases.get(id) {
                ends.push(End::Lease(lease.expires_at, id));
            }
        }
        ends.retain(|end| end.at() <= stamp);
        ends.sort_by(|one, other| one.at().cmp(&other.at()).then_with(|| one.cmp(other)));
        ends.dedup();
        Expiring {
            ends: ends.into_iter(),
            current: None,
        }
    }
}

fn fold_member(digest: &mut Digest, id: u64, name: &str, urls: &[String]) {
    digest.numbers(Tag::Member, [id, urls.len() as u64]);
    digest.bytes(name.as_bytes());
    for url in urls {
        digest.bytes(url.as_bytes());
    }
}

/// An `Expire` command under way: one revision after the other, all of them visible at its end.
#[derive(Debug)]
struct Expiring {
    ends: std::vec::IntoIter<End>,
    current: Option<Current>,
}

/// What may end. The order of the kinds decides between equals.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Node(Timestamp, String),
    Lease(Timestamp, i64),
}

impl End {
    fn at(&self) -> Timestamp {
        match self {
            Self::Node(at, _) | Self::Lease(at, _) => *at,
        }
    }
}

#[derive(Debug)]
enum Current {
    Node(Expiry),
    Lease(Ending),
}

impl Expiring {
    /// Goes on; true = complete.
    fn step(&mut self, store: &mut Store, edit: &mut Edit, budget: &mut Budget) -> bool {
        let keyspace = &mut store.keyspace;
        loop {
            let is_done = match &mut self.current {
                None => true,
                Some(Current::Node(expiry)) => expiry.step(keyspace, edit, budget),
                Some(Current::Lease(ending)) => ending.step(keyspace, edit, budget),
            };
            if !is_done {
                return false;
            }
            if self.current.take().is_some() {
                edit.close_change();
            }
            if self.ends.len() > 0 && !budget.take() {
                return false;
            }
            self.current = match self.ends.next() {
                Some(End::Node(at, path)) => Some(Current::Node(Expiry::begin(keyspace, edit, &path, at))),
                Some(End::Lease(_, id)) => Some(Current::Lease(Ending::new(id, Action::Expire))),
                None => return true,
            };
        }
    }
}
