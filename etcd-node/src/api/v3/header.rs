//! The header that every v3 answer carries: who answers, at which revision, in which term.

use proto::etcdserverpb::ResponseHeader;
use proto::ids::{Revision, Term};

use crate::api::Context;

/// A header at this revision; the zero revision stands in answers that are not about the keyspace.
pub(super) fn header(context: &Context, revision: Revision, term: Term) -> ResponseHeader {
    ResponseHeader {
        cluster_id: context.cluster.get(),
        member_id: context.node.get(),
        revision: revision.get(),
        raft_term: term.get(),
    }
}

/// A header of this moment.
pub(super) fn header_now(context: &Context) -> ResponseHeader {
    let revision = context.handle.view(|view| view.revision());
    header(context, revision, context.handle.status().term)
}

/// Completes the header of an answer that the store made: it knows the revision alone. Headers of answers
/// nested in a transaction stay as they are, as in etcd.
pub(super) fn complete(context: &Context, slot: &mut Option<ResponseHeader>, term: Term) {
    let revision = slot.as_ref().map_or(0, |header| header.revision);
    *slot = Some(header(context, Revision::new(revision), term));
}
