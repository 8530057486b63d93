//! Transactions: which branches are taken is decided before the first write, everything that could be
//! refused is checked, and only then the operations run, each seeing what the ones before it wrote.
//!
//! After the first write nothing can fail (etcd 3.5.17 applied halves of transactions). The comparisons of
//! nested transactions are taken with the first ones, before any write: as etcd does.

use proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcdserverpb::request_op::Request;
use proto::etcdserverpb::response_op::Response;
use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseHeader, ResponseOp, TxnRequest,
    TxnResponse,
};
use proto::key::KeyRange;

use super::range::Collector;
use super::write::{self, Delete};
use super::{Refusal, check, header};
use crate::budget::Budget;
use crate::mvcc::{Cursor, Edit, Keyspace, Record};

/// A transaction under way.
#[derive(Debug)]
pub(crate) struct Txn {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Decide(Decision),
    Run(Box<Run>),
}

impl Txn {
    pub(crate) fn new(request: TxnRequest) -> Result<Self, Refusal> {
        check::txn(&request)?;
        let decision = Decision {
            levels: vec![Level::new(request)],
            program: Vec::new(),
        };
        Ok(Self {
            phase: Phase::Decide(decision),
        })
    }

    /// Goes on; none = the budget ended first.
    pub(crate) fn step(
        &mut self,
        keyspace: &mut Keyspace,
        edit: &mut Edit,
        budget: &mut Budget,
    ) -> Option<Result<TxnResponse, Refusal>> {
        if let Phase::Decide(decision) = &mut self.phase {
            if !decision.step(keyspace, edit, budget) {
                return None;
            }
            let program = std::mem::take(&mut decision.program);
            if let Err(refusal) = refuse(keyspace, &program) {
                return Some(Err(refusal));
            }
            self.phase = Phase::Run(Box::new(Run {
                program: program.into_iter(),
                open: Vec::new(),
                current: None,
            }));
        }
        match &mut self.phase {
            Phase::Run(run) => run.step(keyspace, edit, budget).map(Ok),
            Phase::Decide(_) => unreachable!("a decided transaction runs"),
        }
    }
}

/// The taken branches as one line of instructions.
#[derive(Debug)]
enum Instruction {
    /// A transaction begins; whether its comparisons held.
    Open(bool),
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    /// The transaction that was opened last ends.
    Close,
}

/// Finding the branches that are taken.
#[derive(Debug)]
struct Decision {
    levels: Vec<Level>,
    program: Vec<Instruction>,
}

#[derive(Debug)]
enum Level {
    Comparing {
        request: TxnRequest,
        compared: usize,
        scan: Option<Scan>,
    },
    Taken(std::vec::IntoIter<RequestOp>),
}

/// One comparison over a range under way.
#[derive(Debug)]
struct Scan {
    cursor: Cursor,
    is_empty: bool,
}

impl Level {
    fn new(request: TxnRequest) -> Self {
        Self::Comparing {
            request,
            compared: 0,
            scan: None,
        }
    }
}

impl Decision {
    /// Goes on; true = complete.
    fn step(&mut self, keyspace: &Keyspace, edit: &Edit, budget: &mut Budget) -> bool {
        while let Some(level) = self.levels.last_mut() {
            match level {
                Level::Comparing {
                    request,
                    compared,
                    scan,
                } => {
                    let Some(holds) = compare_all(keyspace, edit, (&request.compare, compared, scan), budget)
                    else {
                        return false;
                    };
                    let branch = if holds {
                        &mut request.success
                    } else {
                        &mut request.failure
                    };
                    let branch = std::mem::take(branch);
                    self.program.push(Instruction::Open(holds));
                    *level = Level::Taken(branch.into_iter());
                }
                Level::Taken(operations) => match operations.next().map(|operation| operation.request) {
                    Some(Some(Request::RequestRange(request))) => {
                        self.program.push(Instruction::Range(request));
                    }
                    Some(Some(Request::RequestPut(request))) => self.program.push(Instruction::Put(request)),
                    Some(Some(Request::RequestDeleteRange(request))) => {
                        self.program.push(Instruction::Delete(request));
                    }
                    Some(Some(Request::RequestTxn(request))) => self.levels.push(Level::new(request)),
                    Some(None) => unreachable!("checked: every operation is one"),
                    None => {
                        self.program.push(Instruction::Close);
                        self.levels.pop();
                    }
                },
            }
        }
        true
    }
}

/// Whether all comparisons hold; none = the budget ended first.
fn compare_all(
    keyspace: &Keyspace,
    edit: &Edit,
    (compares, compared, scan): (&[Compare], &mut usize, &mut Option<Scan>),
    budget: &mut Budget,
) -> Option<bool> {
    while let Some(compare) = compares.get(*compared) {
        let scan_now = scan.get_or_insert_with(|| Scan {
            cursor: Cursor::new(&KeyRange::new(compare.key.clone(), compare.range_end.clone())),
            is_empty: true,
        });
        if !scan_now.step(keyspace, edit, compare, budget)? {
            return Some(false);
        }
        *scan = None;
        *compared += 1;
    }
    Some(true)
}

impl Scan {
    /// Whether the comparison holds for every key; none = the budget ended first.
    fn step(
        &mut self,
        keyspace: &Keyspace,
        edit: &Edit,
        compare: &Compare,
        budget: &mut Budget,
    ) -> Option<bool> {
        let mut stopped_at = None;
        for (key, versions) in keyspace.keys.scan(&self.cursor) {
            if !budget.take() {
                stopped_at = Some(key.clone());
                break;
            }
            let Some(record) = versions
                .at(edit.revision())
                .and_then(|version| version.state.as_ref())
            else {
                continue;
            };
            self.is_empty = false;
            if !holds(compare, Some(record)) {
                return Some(false);
            }
        }
        self.cursor.stop_at(stopped_at);
        if !self.cursor.is_done() {
            return None;
        }
        Some(!self.is_empty || holds(compare, None))
    }
}

/// Whether a comparison holds for one key. One that is not there has zeros, and no value: not even an
/// empty one.
fn holds(compare: &Compare, record: Option<&std::sync::Arc<Record>>) -> bool {
    let number = |of: fn(&Record) -> i64| record.map_or(0, |record| of(record));
    let given = |wanted: CompareTarget| match (&compare.target_union, wanted) {
        (Some(TargetUnion::Version(number)), CompareTarget::Version)
        | (Some(TargetUnion::CreateRevision(number)), CompareTarget::Create)
        | (Some(TargetUnion::ModRevision(number)), CompareTarget::Mod)
        | (Some(TargetUnion::Lease(number)), CompareTarget::Lease) => *number,
        _ => 0,
    };
    let ordering = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Value) => {
            let Some(record) = record else { return false };
            let given = match &compare.target_union {
                Some(TargetUnion::Value(value)) => value.as_ref(),
                _ => &[],
            };
            record.value.as_ref().cmp(given)
        }
        Ok(target @ CompareTarget::Version) => number(|record| record.version).cmp(&given(target)),
        Ok(target @ CompareTarget::Create) => {
            number(|record| record.create_revision.get()).cmp(&given(target))
        }
        Ok(target @ CompareTarget::Mod) => number(|record| record.mod_revision.get()).cmp(&given(target)),
        Ok(target @ CompareTarget::Lease) => number(|record| record.lease).cmp(&given(target)),
        // etcd compares nothing with nothing.
        Err(_) => std::cmp::Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => ordering.is_eq(),
        Ok(CompareResult::NotEqual) => ordering.is_ne(),
        Ok(CompareResult::Greater) => ordering.is_gt(),
        Ok(CompareResult::Less) => ordering.is_lt(),
        Err(_) => true,
    }
}

/// Everything that could be refused, against the state before the first write: all puts, then all ranges.
fn refuse(keyspace: &Keyspace, program: &[Instruction]) -> Result<(), Refusal> {
    let mut deleted: Vec<KeyRange> = Vec::new();
    for instruction in program {
        match instruction {
            Instruction::Put(put) => {
                let is_deleted = || deleted.iter().any(|range| range.contains(&put.key));
                if write::keeps(put) && (keyspace.keys.newest(&put.key).is_none() || is_deleted()) {
                    return Err(Refusal::KeyNotFound);
                }
                if put.lease != 0 && keyspace.leases.get(put.lease).is_none() {
                    return Err(Refusal::LeaseNotFound);
                }
            }
            Instruction::Delete(delete) => {
                deleted.push(KeyRange::new(delete.key.clone(), delete.range_end.clone()));
            }
            Instruction::Open(_) | Instruction::Range(_) | Instruction::Close => {}
        }
    }
    for instruction in program {
        if let Instruction::Range(range) = instruction
            && range.revision != 0
        {
            if range.revision > keyspace.revision.get() {
                return Err(Refusal::FutureRevision);
            }
            // Alone a Range of any negative revision reads the newest; here etcd compares it with the compacted
            // revision, which is -1 before the first compaction.
            let compacted = keyspace.compacted.map_or(-1, proto::ids::Revision::get);
            if range.revision < compacted {
                return Err(Refusal::Compacted);
            }
        }
    }
    Ok(())
}

/// Running the instructions.
#[derive(Debug)]
struct Run {
    program: std::vec::IntoIter<Instruction>,
    /// The transactions that are open, outermost first.
    open: Vec<TxnResponse>,
    current: Option<Operation>,
}

#[derive(Debug)]
enum Operation {
    Range(Collector),
    Put(PutRequest),
    Delete(Delete),
}

impl Run {
    /// Goes on; none = the budget ended first.
    fn step(&mut self, keyspace: &mut Keyspace, edit: &mut Edit, budget: &mut Budget) -> Option<TxnResponse> {
        loop {
            if let Some(operation) = &mut self.current {
                let response = operation.step(keyspace, edit, budget)?;
                self.current = None;
                self.answer(response);
            }
            match self
                .program
                .next()
                .expect("a program ends with its outermost close")
            {
                Instruction::Open(succeeded) => self.open.push(TxnResponse {
                    // etcd leaves the header of a nested transaction empty.
                    header: Some(ResponseHeader::default()),
                    succeeded,
                    responses: Vec::new(),
                }),
                Instruction::Range(request) => self.current = Some(Operation::Range(Collector::new(request))),
                Instruction::Delete(request) => self.current = Some(Operation::Delete(Delete::new(request))),
                Instruction::Put(request) => self.current = Some(Operation::Put(request)),
                Instruction::Close => {
                    let done = self.open.pop().expect("what closes was opened");
                    if self.open.is_empty() {
                        return Some(TxnResponse {
                            header: header(edit.header_revision()),
                            ..done
                        });
                    }
                    self.answer(Response::ResponseTxn(done));
                }
            }
        }
    }

    fn answer(&mut self, response: Response) {
        let innermost = self
            .open
            .last_mut()
            .expect("an operation belongs to a transaction");
        innermost.responses.push(ResponseOp {
            response: Some(response),
        });
    }
}

impl Operation {
    fn step(&mut self, keyspace: &mut Keyspace, edit: &mut Edit, budget: &mut Budget) -> Option<Response> {
        match self {
            Self::Range(collector) => {
                let at = match collector.request().revision {
                    revision if revision > 0 => proto::ids::Revision::new(revision),
                    _ => edit.revision(),
                };
                let is_done = collector.step(keyspace, at, budget);
                is_done.then(|| Response::ResponseRange(collector.finish(edit.header_revision())))
            }
            Self::Put(request) => budget
                .take()
                .then(|| Response::ResponsePut(write::put_checked(keyspace, edit, request))),
            Self::Delete(delete) => delete
                .step(keyspace, edit, budget)
                .map(Response::ResponseDeleteRange),
        }
    }
}
