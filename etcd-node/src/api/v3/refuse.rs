//! Refusals as gRPC says them: etcd's code and text for each (keyspace rules, section 8).

use store::v3::Refusal;
use tonic::{Code, Status};

use crate::driver::{ProposeError, ReadError};

/// What the state machine or the checks refused.
pub(super) fn refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => Code::OutOfRange,
        Refusal::EmptyKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::DuplicateKey
        | Refusal::TooManyOperations
        | Refusal::InvalidSortOption => Code::InvalidArgument,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
    };
    Status::new(code, refusal.to_string())
}

/// Why a write has no outcome.
pub(super) fn unproposed(error: ProposeError) -> Status {
    let code = match error {
        ProposeError::Overloaded | ProposeError::NoSpace => Code::ResourceExhausted,
        ProposeError::NoLeader
        | ProposeError::TimedOut
        | ProposeError::Uncertain
        | ProposeError::Stopping => Code::Unavailable,
        ProposeError::Corrupt => Code::DataLoss,
        ProposeError::TooLarge => Code::InvalidArgument,
    };
    Status::new(code, error.to_string())
}

/// Why a read was not confirmed.
pub(super) fn unread(error: ReadError) -> Status {
    let code = match error {
        ReadError::Overloaded => Code::ResourceExhausted,
        ReadError::NoLeader | ReadError::TimedOut | ReadError::Stopping => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// The request would be larger than a log entry of the v3 API may be.
pub(super) fn too_large() -> Status {
    unproposed(ProposeError::TooLarge)
}

/// A bound of this node is reached.
pub(super) fn too_many() -> Status {
    unread(ReadError::Overloaded)
}

/// The caller wants a leader and there is none.
pub(super) fn no_leader() -> Status {
    unread(ReadError::NoLeader)
}

/// The node stops: streams end.
pub(super) fn stopping() -> Status {
    unread(ReadError::Stopping)
}

/// The driver answered a command with another command's outcome: our bug, told to the client instead of hidden.
pub(super) fn mismatched(call: &str) -> Status {
    debug_assert!(false, "{call} was answered with another command's outcome");
    Status::internal(format!("{call} was answered with another command's outcome"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Codes and texts of etcd 3.4 (`rpctypes`).
    #[test]
    fn refusals_have_the_codes_and_texts_of_etcd() {
        let table = [
            (
                Refusal::Compacted,
                11,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (
                Refusal::FutureRevision,
                11,
                "etcdserver: mvcc: required revision is a future revision",
            ),
            (Refusal::EmptyKey, 3, "etcdserver: key is not provided"),
            (Refusal::KeyNotFound, 3, "etcdserver: key not found"),
            (Refusal::ValueProvided, 3, "etcdserver: value is provided"),
            (Refusal::LeaseProvided, 3, "etcdserver: lease is provided"),
            (
                Refusal::DuplicateKey,
                3,
                "etcdserver: duplicate key given in txn request",
            ),
            (
                Refusal::TooManyOperations,
                3,
                "etcdserver: too many operations in txn request",
            ),
            (Refusal::InvalidSortOption, 3, "etcdserver: invalid sort option"),
            (Refusal::LeaseNotFound, 5, "etcdserver: requested lease not found"),
            (Refusal::LeaseExists, 9, "etcdserver: lease already exists"),
            (Refusal::LeaseTtlTooLarge, 11, "etcdserver: too large lease TTL"),
        ];
        for (variant, code, text) in table {
            let status = refusal(&variant);
            assert_eq!((status.code() as i32, status.message()), (code, text));
        }
    }

    #[test]
    fn unproposed_writes_have_the_codes_and_texts_of_etcd() {
        let table = [
            (ProposeError::Overloaded, 8, "etcdserver: too many requests"),
            (ProposeError::NoLeader, 14, "etcdserver: no leader"),
            (ProposeError::TimedOut, 14, "etcdserver: request timed out"),
            (
                ProposeError::Uncertain,
                14,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (
                ProposeError::NoSpace,
                8,
                "etcdserver: mvcc: database space exceeded",
            ),
            (ProposeError::Corrupt, 15, "etcdserver: corrupt cluster"),
            (ProposeError::Stopping, 14, "etcdserver: server stopped"),
            (ProposeError::TooLarge, 3, "etcdserver: request is too large"),
        ];
        for (variant, code, text) in table {
            let status = unproposed(variant);
            assert_eq!((status.code() as i32, status.message()), (code, text));
        }
    }

    #[test]
    fn unconfirmed_reads_have_the_codes_and_texts_of_etcd() {
        let table = [
            (ReadError::Overloaded, 8, "etcdserver: too many requests"),
            (ReadError::NoLeader, 14, "etcdserver: no leader"),
            (ReadError::TimedOut, 14, "etcdserver: request timed out"),
            (ReadError::Stopping, 14, "etcdserver: server stopped"),
        ];
        for (variant, code, text) in table {
            let status = unread(variant);
            assert_eq!((status.code() as i32, status.message()), (code, text));
        }
    }
}
