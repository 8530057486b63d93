//! Answers of the v2 API with their headers (section 1.8 of the v2 facts).

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use proto::ids::{LogIndex, Term, V2Index};

use super::error::Error;
use super::{Front, json};
use crate::api::answer::{self, Body, JSON};

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");
const ETCD_INDEX: HeaderName = HeaderName::from_static("x-etcd-index");
const RAFT_INDEX: HeaderName = HeaderName::from_static("x-raft-index");
const RAFT_TERM: HeaderName = HeaderName::from_static("x-raft-term");

/// Headers of a key answer, with those that the server adds (length, date).
const HEADERS: usize = 8;

/// Where an answer stands in the three counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the event for writes, at the time of reading for reads, at registration for watches.
    pub(super) v2_index: V2Index,
    pub(super) raft_index: LogIndex,
    pub(super) term: Term,
}

impl Front {
    /// A success of the keys API.
    pub(super) fn success(&self, status: StatusCode, place: Place, body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = self.headers(place.v2_index.get());
        response
            .headers_mut()
            .insert(RAFT_INDEX, HeaderValue::from(place.raft_index.get()));
        response
            .headers_mut()
            .insert(RAFT_TERM, HeaderValue::from(place.term.get()));
        response
    }

    /// A refusal of the keys API: never with the raft headers.
    pub(super) fn failure(&self, error: &Error) -> Response<Body> {
        let mut response = Response::new(Body::Whole(error.to_json().into()));
        *response.status_mut() = error.status();
        *response.headers_mut() = self.headers(error.index());
        response
    }

    fn headers(&self, v2_index: u64) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(HEADERS);
        headers.insert(CONTENT_TYPE, JSON);
        headers.insert(CLUSTER_ID, self.cluster.clone());
        headers.insert(ETCD_INDEX, HeaderValue::from(v2_index));
        headers
    }

    /// JSON of the members API.
    pub(super) fn of_members(&self, status: StatusCode, body: impl Into<Bytes>) -> Response<Body> {
        let mut response = answer::whole(status, JSON, body);
        response.headers_mut().insert(CLUSTER_ID, self.cluster.clone());
        response
    }
}

/// The second family of errors: members and stats. No line feed.
pub(super) fn message(text: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + text.len());
    let mut fields = json::Fields::open(&mut body);
    json::string(fields.next("message"), text.as_bytes());
    fields.close();
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_line_feed() {
        assert_eq!(
            message("not current leader"),
            br#"{"message":"not current leader"}"#
        );
    }
}
