//! Refusals of the v3 API that the state machine decides; texts and codes are etcd's.

/// Why a v3 operation is refused. [`std::fmt::Display`] is the gRPC message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// OutOfRange
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// OutOfRange
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    /// InvalidArgument
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    /// InvalidArgument
    #[error("etcdserver: key not found")]
    KeyNotFound,
    /// InvalidArgument
    #[error("etcdserver: value is provided")]
    ValueProvided,
    /// InvalidArgument
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    /// InvalidArgument
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    /// InvalidArgument
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    /// InvalidArgument
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    /// NotFound
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    /// FailedPrecondition
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    /// OutOfRange
    #[error("etcdserver: too large lease TTL")]
    LeaseTtlTooLarge,
}
