//! The v2 front: HTTP as etcd 2.3 speaks it, with the fixes that etcd 3 made to it.
//!
//! A request is routed by its decoded, clean path, becomes a command or a reading closure, and its outcome is
//! rendered; whatever can be decided without the replica is a pure function beside its table of cases.

mod cluster;
mod error;
mod form;
mod json;
mod keys;
mod matching;
mod params;
mod respond;
mod stats;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::Body as HttpBody;

use super::Context;
use super::answer::{self, Body};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The v2 front of one node.
pub struct Front {
    context: Arc<Context>,
    /// The value of `X-Etcd-Cluster-Id`.
    cluster: HeaderValue,
    forms: form::Budget,
}

/// What stands behind a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Endpoint<'a> {
    /// With what follows `/v2/keys`.
    Keys(&'a str),
    Machines,
    Leader,
    /// With what follows `/v2/members/`.
    Members(&'a str),
    StatsSelf,
    StatsStore,
    StatsLeader,
}

impl<'a> Endpoint<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/v2/")?;
        let (head, tail) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        match (head, tail) {
            ("keys", key) => Some(Self::Keys(key)),
            ("machines" | "peers", "") => Some(Self::Machines),
            ("leader", "") => Some(Self::Leader),
            ("members", id) => Some(Self::Members(id.strip_prefix('/').unwrap_or(id))),
            ("stats", "/self") => Some(Self::StatsSelf),
            ("stats", "/store") => Some(Self::StatsStore),
            ("stats", "/leader") => Some(Self::StatsLeader),
            _ => None,
        }
    }

    /// The methods it has, as the `Allow` header lists them.
    fn allow(self) -> &'static str {
        match self {
            Self::Keys(_) => "HEAD,GET,PUT,POST,DELETE",
            Self::Machines | Self::Leader => "GET,HEAD",
            Self::Members(_) => "GET,POST,PUT,DELETE",
            Self::StatsSelf | Self::StatsStore | Self::StatsLeader => "GET",
        }
    }

    fn allows(self, method: &Method) -> bool {
        self.allow().split(',').any(|allowed| allowed == method.as_str())
    }
}

impl Front {
    /// The front of the node that the context describes.
    ///
    /// # Panics
    /// Never: a cluster id is hexadecimal.
    pub fn new(context: Arc<Context>) -> Self {
        let cluster =
            HeaderValue::try_from(context.cluster.to_string()).expect("hexadecimal is a header value");
        Self {
            context,
            cluster,
            forms: form::Budget::default(),
        }
    }

    /// Answers one request; `path` is its decoded, clean path.
    pub async fn answer<B>(&self, request: Request<B>, path: &str) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let Some(endpoint) = Endpoint::of(path) else {
            return answer::not_found();
        };
        if !endpoint.allows(request.method()) {
            return answer::method_not_allowed(endpoint.allow());
        }
        match endpoint {
            Endpoint::Keys(key) => self.keys(request, key).await,
            Endpoint::Machines => self.machines(),
            Endpoint::Leader => self.leader(),
            Endpoint::Members(id) => self.members(request.method(), id),
            Endpoint::StatsSelf => self.stats_self(),
            Endpoint::StatsStore => self.stats_store(),
            Endpoint::StatsLeader => self.stats_leader(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_their_endpoints() {
        let cases = [
            ("/v2/keys", Some(Endpoint::Keys(""))),
            ("/v2/keys/", Some(Endpoint::Keys("/"))),
            ("/v2/keys/a/b", Some(Endpoint::Keys("/a/b"))),
            ("/v2/keysa", None),
            ("/v2/machines", Some(Endpoint::Machines)),
            ("/v2/machines/", None),
            ("/v2/peers", Some(Endpoint::Machines)),
            ("/v2/leader", Some(Endpoint::Leader)),
            ("/v2/members", Some(Endpoint::Members(""))),
            ("/v2/members/", Some(Endpoint::Members(""))),
            ("/v2/members/leader", Some(Endpoint::Members("leader"))),
            ("/v2/stats/self", Some(Endpoint::StatsSelf)),
            ("/v2/stats", None),
            ("/v2/stats/nosuch", None),
            ("/v2", None),
            ("/v2/", None),
            ("/v2/speedTest", None),
            ("/v1/keys/foo", None),
        ];
        for (path, endpoint) in cases {
            assert_eq!(Endpoint::of(path), endpoint, "{path}");
        }
    }

    #[test]
    fn methods_are_those_of_etcd_2() {
        let put_in_lower_case = Method::from_bytes(b"put").unwrap();
        let cases = [
            (Endpoint::Keys("/a"), Method::POST, true),
            (Endpoint::Keys("/a"), Method::PATCH, false),
            (Endpoint::Keys("/a"), put_in_lower_case, false),
            (Endpoint::Machines, Method::HEAD, true),
            (Endpoint::Machines, Method::POST, false),
            (Endpoint::Members(""), Method::HEAD, false),
            (Endpoint::Members("1"), Method::DELETE, true),
            (Endpoint::StatsSelf, Method::HEAD, false),
        ];
        for (endpoint, method, allowed) in cases {
            assert_eq!(endpoint.allows(&method), allowed, "{endpoint:?} {method}");
        }
    }
}
