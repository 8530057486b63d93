//! What the v2 API answers.

use serde::{Deserialize, Serialize};

/// A file or directory, as it stands or stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Absolute path; empty for the root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Value of a file. None for directories and for the `node` of a deletion.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Whether it is a directory.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dir: bool,
    /// When it will vanish, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration: Option<String>,
    /// Seconds until then, rounded up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<i64>,
    /// Children, where they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<Self>,
    /// The event index of its last change; 0 for the root.
    #[serde(rename = "modifiedIndex")]
    pub modified_index: u64,
    /// The event index of its creation; 0 for the root.
    #[serde(rename = "createdIndex")]
    pub created_index: u64,
}

/// What happened to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// `get`, `set`, `create`, `update`, `delete`, `compareAndSwap`, `compareAndDelete` or `expire`.
    pub action: String,
    /// The node after it.
    pub node: Node,
    /// The node before it, where there was one.
    #[serde(rename = "prevNode", default, skip_serializing_if = "Option::is_none")]
    pub prev_node: Option<Node>,
}

/// An event and what the headers say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The body.
    pub event: Event,
    /// `X-Etcd-Index`: the store's index when a read or watch began; a write's own. 0 if not said.
    pub index: u64,
    /// `X-Raft-Index`, where it is said.
    pub raft_index: Option<u64>,
    /// `X-Raft-Term`, where it is said.
    pub raft_term: Option<u64>,
    /// `X-Etcd-Cluster-Id` in hexadecimal, where it is said.
    pub cluster_id: Option<String>,
}

/// A member of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Member {
    /// Hexadecimal.
    pub id: String,
    /// Empty until the member has started once.
    pub name: String,
    /// Where other members reach it.
    #[serde(rename = "peerURLs")]
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until the member has started once.
    #[serde(rename = "clientURLs")]
    pub client_urls: Vec<String>,
}

/// What a server says it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The server's own.
    #[serde(rename = "etcdserver")]
    pub server: String,
    /// The lowest of its cluster, or `not_decided`.
    #[serde(rename = "etcdcluster", default)]
    pub cluster: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_and_written_in_the_order_of_the_api() {
        let text = concat!(
            r#"{"action":"set","node":{"key":"/a","value":"","expiration":"2026-11-23T04:25:52.5Z","ttl":5,"#,
            r#""modifiedIndex":8,"createdIndex":8},"prevNode":{"key":"/a","dir":true,"modifiedIndex":7,"createdIndex":7}}"#
        );
        let event: Event = serde_json::from_str(text).unwrap();
        assert_eq!(
            event.node.value.as_deref(),
            Some(""),
            "an empty value is not a missing one"
        );
        assert_eq!(serde_json::to_string(&event).unwrap(), text);
    }

    #[test]
    fn the_root_has_no_key() {
        let event: Event = serde_json::from_str(r#"{"action":"get","node":{"dir":true}}"#).unwrap();
        assert_eq!(
            event.node,
            Node {
                dir: true,
                ..Node::default()
            }
        );
    }
}
