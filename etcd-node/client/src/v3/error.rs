//! What can go wrong, told apart by what the caller may do next.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use proto::ids::{ClusterId, Revision};
use tonic::{Code, ConnectError, Status};

use crate::endpoint::EndpointError;
use crate::v3::lease::LeaseId;

/// What one endpoint said, or why it said nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Who was asked.
    pub endpoint: String,
    /// What came of it.
    pub reason: String,
}

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The endpoints cannot be used as given.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// No endpoint carried the request out; nothing was changed. Try again later.
    #[error("no endpoint answers: {}", Attempts(attempts))]
    Unavailable {
        /// One per endpoint that was tried.
        attempts: Vec<Attempt>,
    },
    /// A read was not answered in time.
    #[error("no answer within {} ms: {}", after.as_millis(), Attempts(attempts))]
    Timeout {
        /// The limit per endpoint.
        after: Duration,
        /// One per endpoint that was tried.
        attempts: Vec<Attempt>,
    },
    /// A write was sent and not answered: it may have happened, or happen yet. Read before trying again.
    #[error("{endpoint} did not answer, and the write may have happened: {reason}")]
    Uncertain {
        /// Who it was sent to.
        endpoint: String,
        /// Why there is no answer.
        reason: String,
    },
    /// The cluster refuses; trying the same again is no use.
    #[error("the request is refused: {message}")]
    Refused {
        /// gRPC's code.
        code: Code,
        /// The server's text.
        message: String,
    },
    /// The revision asked for is compacted: events were missed. List anew and watch from there.
    #[error("the revision asked for is compacted (the oldest left is {})", Shown(*revision))]
    Compacted {
        /// The oldest revision that can be asked for, where the server says so.
        revision: Option<Revision>,
    },
    /// The lease is gone, and with it every key under it.
    #[error("lease {lease} is gone")]
    LeaseGone {
        /// Which one.
        lease: LeaseId,
    },
    /// Another cluster answers behind the same endpoint: what was seen before says nothing about it.
    #[error("cluster {found} answers where cluster {expected} was: list anew")]
    OtherCluster {
        /// The cluster that answered first.
        expected: ClusterId,
        /// The one that answers now.
        found: ClusterId,
    },
    /// The listing is larger than what is held in memory at once.
    #[error("the listing is larger than {limit} bytes: list a shorter prefix")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl Error {
    /// Whether the condition may pass by itself, so that the same request makes sense later. Not so for
    /// [`Error::Uncertain`]: there a read has to come first.
    pub const fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Timeout { .. })
    }
}

struct Attempts<'a>(&'a [Attempt]);

impl fmt::Display for Attempts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, Attempt { endpoint, reason }) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(f, "{separator}{endpoint}: {reason}")?;
        }
        Ok(())
    }
}

struct Shown(Option<Revision>);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(revision) => revision.fmt(f),
            None => f.write_str("not said"),
        }
    }
}

/// What a gRPC status means for the request that it answers.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It certainly changed nothing, here and now; another endpoint may do better.
    NotDone,
    /// It may have been carried out.
    Unclear,
    /// The cluster's own answer; another endpoint would say the same.
    Final(Error),
}

/// Refusals of etcd that carry a code which otherwise means "nobody knows": these texts are given before
/// anything is proposed.
const NOT_PROPOSED: [&str; 2] = ["etcdserver: no leader", "etcdserver: not capable"];

pub(super) fn verdict(status: &Status) -> Verdict {
    if was_never_sent(status) || NOT_PROPOSED.contains(&status.message()) {
        return Verdict::NotDone;
    }
    match status.code() {
        // What servers and transports say when they cannot tell.
        Code::Unavailable
        | Code::Unknown
        | Code::Internal
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Ok => Verdict::Unclear,
        Code::OutOfRange if status.message().contains("compacted") => {
            Verdict::Final(Error::Compacted { revision: None })
        }
        code @ (Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated) => Verdict::Final(Error::Refused {
            code,
            message: status.message().to_owned(),
        }),
    }
}

/// Whether the request never left: no connection came about, or the request came back from hyper's queue.
fn was_never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>()
            || error
                .downcast_ref::<hyper::Error>()
                .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Code, message: &str) -> Verdict {
        verdict(&Status::new(code, message))
    }

    #[test]
    fn a_timeout_after_proposing_leaves_the_write_unclear() {
        for message in [
            "etcdserver: request timed out",
            "etcdserver: request timed out, possibly due to previous leader failure",
            "etcdserver: server stopped",
            "etcdserver: leader changed",
        ] {
            assert!(
                matches!(of(Code::Unavailable, message), Verdict::Unclear),
                "{message}"
            );
        }
        assert!(matches!(of(Code::Unknown, "anything"), Verdict::Unclear));
    }

    #[test]
    fn what_was_refused_before_proposing_may_be_tried_elsewhere() {
        assert!(matches!(
            of(Code::Unavailable, "etcdserver: no leader"),
            Verdict::NotDone
        ));
    }

    #[test]
    fn the_clusters_own_refusals_are_final() {
        let refused = of(
            Code::ResourceExhausted,
            "etcdserver: mvcc: database space exceeded",
        );
        assert!(matches!(
            refused,
            Verdict::Final(Error::Refused {
                code: Code::ResourceExhausted,
                ..
            })
        ));
        let compacted = of(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision has been compacted",
        );
        assert!(matches!(
            compacted,
            Verdict::Final(Error::Compacted { revision: None })
        ));
        let future = of(
            Code::OutOfRange,
            "etcdserver: mvcc: required revision is a future revision",
        );
        assert!(matches!(future, Verdict::Final(Error::Refused { .. })));
    }

    #[test]
    fn a_connection_that_never_stood_is_told_from_one_that_broke() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let status = Status::from_error(Box::new(ConnectError(Box::new(refused))));
        assert!(matches!(verdict(&status), Verdict::NotDone));
        let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert!(matches!(
            verdict(&Status::from_error(Box::new(reset))),
            Verdict::Unclear
        ));
    }
}
