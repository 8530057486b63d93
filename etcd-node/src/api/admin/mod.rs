//! The admin front: what operators and their tools ask a node: version, health, metrics (section 4.3 of the v2
//! facts).

use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, HeaderValue};
use http::{Method, Response, StatusCode};
use proto::etcdserverpb::AlarmType;
use proto::ids::NodeId;

use super::Context;
use super::answer::{self, Body, JSON};
use super::context::{CLUSTER_VERSION, OWN_VERSION, SERVER_VERSION};
use crate::metrics::MEDIA_TYPE;

/// How long a healthy cluster may take to confirm a read, as in etcd.
const QUORUM_READ_TIMEOUT: Duration = Duration::from_secs(1);

/// The admin front of one node.
pub struct Front {
    context: Arc<Context>,
}

impl Front {
    /// The front of the node that the context describes.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Answers one request; `path` is its decoded, clean path.
    pub async fn answer(&self, method: &Method, path: &str, query: &str) -> Response<Body> {
        if !matches!(path, "/version" | "/health" | "/metrics") {
            return answer::not_found();
        }
        if method != Method::GET {
            return answer::method_not_allowed("GET");
        }
        match path {
            "/version" => answer::whole(StatusCode::OK, JSON, version_json()),
            "/health" => self.health(&HealthQuery::parse(query)).await,
            _ => self.metrics(),
        }
    }

    async fn health(&self, query: &HealthQuery) -> Response<Body> {
        let handle = &self.context.handle;
        let alarms = handle.view(|view| view.alarms());
        let has_leader = handle.status().leader != NodeId::NONE;
        let mut reason = query.local_reason(&alarms, has_leader);
        if reason.is_none() && !query.serializable {
            let read = tokio::time::timeout(QUORUM_READ_TIMEOUT, handle.read_barrier()).await;
            reason = match read {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("QGET ERROR: {error}")),
                Err(_) => Some("QGET ERROR: no quorum confirmed a read in time".to_owned()),
            };
        }
        let mut response = match reason {
            None => answer::whole(StatusCode::OK, JSON, r#"{"health":"true"}"#),
            Some(reason) => {
                let body = format!("{}\n", serde_json::json!({ "health": "false", "reason": reason }));
                answer::whole(StatusCode::SERVICE_UNAVAILABLE, JSON, body)
            }
        };
        response
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn metrics(&self) -> Response<Body> {
        let page = self.context.metrics.render(&self.context.handle.status());
        answer::whole(StatusCode::OK, HeaderValue::from_static(MEDIA_TYPE), page)
    }
}

/// etcd's shape; our own version in a field of its own.
fn version_json() -> String {
    format!(
        r#"{{"etcdserver":"{SERVER_VERSION}","etcdcluster":"{CLUSTER_VERSION}","hawser":"{OWN_VERSION}"}}"#
    )
}

/// What `/health` was asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct HealthQuery {
    /// Alarms that do not count.
    excluded: Vec<String>,
    /// Only this node: neither leader nor quorum is asked for.
    serializable: bool,
}

impl HealthQuery {
    fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for pair in query.split('&') {
            match pair.split_once('=').unwrap_or((pair, "")) {
                ("exclude", alarm) => parsed.excluded.push(alarm.to_ascii_uppercase()),
                ("serializable", value) => parsed.serializable = value == "true",
                _ => {}
            }
        }
        parsed
    }

    /// What this node knows to be wrong by itself, in etcd's words.
    fn local_reason(&self, alarms: &[(u64, i32)], has_leader: bool) -> Option<String> {
        let names = alarms
            .iter()
            .map(|(_, number)| AlarmType::try_from(*number).map_or("UNKNOWN", |alarm| alarm.as_str_name()));
        let mut counting = names.filter(|name| !self.excluded.iter().any(|excluded| excluded == name));
        if let Some(alarm) = counting.next() {
            return Some(format!("ALARM {alarm}"));
        }
        (!has_leader && !self.serializable).then(|| "RAFT NO LEADER".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_has_etcds_shape_and_ours_beside_it() {
        let json: serde_json::Value = serde_json::from_str(&version_json()).unwrap();
        assert_eq!(json["etcdserver"], "3.6.5");
        assert_eq!(json["etcdcluster"], "3.6.0");
        assert_eq!(json["hawser"], OWN_VERSION);
        assert!(version_json().starts_with(r#"{"etcdserver":"3.6.5","etcdcluster":"3.6.0","#));
    }

    #[test]
    fn health_counts_alarms_and_leader_unless_told_otherwise() {
        let no_space = [(1, AlarmType::Nospace as i32)];
        let cases = [
            ("", &[][..], true, None),
            ("", &[][..], false, Some("RAFT NO LEADER")),
            ("serializable=true", &[][..], false, None),
            ("", &no_space[..], true, Some("ALARM NOSPACE")),
            ("serializable=true", &no_space[..], true, Some("ALARM NOSPACE")),
            ("exclude=NOSPACE", &no_space[..], true, None),
            ("exclude=CORRUPT&exclude=nospace", &no_space[..], true, None),
            ("exclude=CORRUPT", &no_space[..], true, Some("ALARM NOSPACE")),
        ];
        for (query, alarms, has_leader, reason) in cases {
            let found = HealthQuery::parse(query).local_reason(alarms, has_leader);
            assert_eq!(found.as_deref(), reason, "{query}");
        }
    }
}
