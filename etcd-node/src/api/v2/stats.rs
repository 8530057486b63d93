//! `/v2/stats/*`: live figures in etcd's shapes (section 4.2 of the v2 facts).

use std::time::Duration;

use http::{Response, StatusCode};
use proto::ids::NodeId;

use super::respond::message;
use super::{Front, json};
use crate::api::answer::{self, Body, JSON};
use crate::driver::Role;
use crate::metrics::{Follower, Leader, Operation, Rates, StoreMetrics};

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Front {
    /// This node, its leader and its traffic.
    pub(super) fn stats_self(&self) -> Response<Body> {
        let (context, metrics) = (&self.context, &self.context.metrics);
        let status = context.handle.status();
        let mut body = Vec::with_capacity(512);
        let mut fields = json::Fields::open(&mut body);
        json::string(fields.next("name"), context.name.as_bytes());
        json::id(fields.next("id"), context.node);
        json::string(fields.next("state"), state(status.role).as_bytes());
        json::string(
            fields.next("startTime"),
            context.started_wall.to_rfc3339().as_bytes(),
        );
        let leader = metrics
            .server
            .leader()
            .filter(|leader| leader.id == status.leader);
        leader_info(fields.next("leaderInfo"), status.leader, leader);
        for (name, (count, rates)) in [("recv", metrics.peers.received()), ("send", metrics.peers.sent())] {
            traffic(&mut fields, name, count, rates);
        }
        fields.close();
        answer::whole(StatusCode::OK, JSON, body)
    }

    /// Operations of the v2 API on this node.
    pub(super) fn stats_store(&self) -> Response<Body> {
        answer::whole(StatusCode::OK, JSON, store_json(&self.context.metrics.store))
    }

    /// How the followers do; only the leader knows.
    pub(super) fn stats_leader(&self) -> Response<Body> {
        let context = &self.context;
        if context.handle.status().role != Role::Leader {
            return answer::whole(StatusCode::FORBIDDEN, JSON, message("not current leader"));
        }
        let ids: Vec<NodeId> = context
            .handle
            .view(|view| view.members().present.keys().copied().collect());
        let others = ids.into_iter().filter(|id| *id != context.node);
        let followers = others.map(|id| (id, context.metrics.peers.follower(id)));
        answer::whole(StatusCode::OK, JSON, leader_json(context.node, followers))
    }
}

fn state(role: Role) -> &'static str {
    match role {
        Role::Follower => "StateFollower",
        Role::Candidate => "StateCandidate",
        Role::Leader => "StateLeader",
    }
}

fn leader_info(body: &mut Vec<u8>, id: NodeId, leader: Option<Leader>) {
    let uptime = leader.map_or(Duration::ZERO, |leader| leader.since.elapsed());
    let since = leader.map_or_else(|| NEVER.to_owned(), |leader| leader.since_wall.to_rfc3339());
    let mut fields = json::Fields::open(body);
    if id == NodeId::NONE {
        json::string(fields.next("leader"), b"");
    } else {
        json::id(fields.next("leader"), id);
    }
    json::string(fields.next("uptime"), go_duration(uptime).as_bytes());
    json::string(fields.next("startTime"), since.as_bytes());
    fields.close();
}

fn traffic(fields: &mut json::Fields<'_>, direction: &str, count: u64, rates: Option<Rates>) {
    json::number(fields.next(&format!("{direction}AppendRequestCnt")), count);
    if let Some(rates) = rates {
        json::number(fields.next(&format!("{direction}PkgRate")), rates.messages);
        json::number(fields.next(&format!("{direction}BandwidthRate")), rates.bytes);
    }
}

fn store_json(store: &StoreMetrics) -> Vec<u8> {
    let of = |operation| {
        let counts = store.counts(operation);
        (counts.succeeded(), counts.failed())
    };
    let (plain, recursive) = (of(Operation::Get), of(Operation::GetRecursive));
    let rows = [
        ("gets", (plain.0 + recursive.0, plain.1 + recursive.1)),
        ("sets", of(Operation::Set)),
        ("delete", of(Operation::Delete)),
        ("update", of(Operation::Update)),
        ("create", of(Operation::Create)),
        ("compareAndSwap", of(Operation::CompareAndSwap)),
        ("compareAndDelete", of(Operation::CompareAndDelete)),
    ];
    let mut body = Vec::with_capacity(400);
    let mut fields = json::Fields::open(&mut body);
    for (name, (succeeded, failed)) in rows {
        json::number(fields.next(&format!("{name}Success")), succeeded);
        json::number(fields.next(&format!("{name}Fail")), failed);
    }
    json::number(fields.next("expireCount"), store.expire_count());
    json::number(fields.next("watchers"), store.watchers());
    fields.close();
    body
}

fn leader_json(leader: NodeId, followers: impl Iterator<Item = (NodeId, Follower)>) -> Vec<u8> {
    let mut body = Vec::with_capacity(512);
    let mut fields = json::Fields::open(&mut body);
    json::id(fields.next("leader"), leader);
    let mut by_id = json::Fields::open(fields.next("followers"));
    for (id, follower) in followers {
        follower_json(by_id.next(&id.to_string()), &follower);
    }
    by_id.close();
    fields.close();
    body
}

fn follower_json(body: &mut Vec<u8>, follower: &Follower) {
    let mut fields = json::Fields::open(body);
    let mut latency = json::Fields::open(fields.next("latency"));
    json::number(latency.next("current"), follower.current);
    json::number(latency.next("average"), follower.average());
    json::number(latency.next("standardDeviation"), follower.standard_deviation());
    json::number(latency.next("minimum"), follower.minimum);
    json::number(latency.next("maximum"), follower.maximum);
    latency.close();
    let mut counts = json::Fields::open(fields.next("counts"));
    json::number(counts.next("fail"), follower.failed);
    json::number(counts.next("success"), follower.succeeded);
    counts.close();
    fields.close();
}

/// A duration as Go prints it: `1h2m3.45s`, `45.773667941s`, `1.5ms`, `0s`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let with_unit = |scale: u32, unit: &str| {
        let places = scale as usize;
        let whole = nanos / 10_u128.pow(scale);
        let fraction = format!("{:0places$}", nanos % 10_u128.pow(scale));
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() {
            format!("{whole}{unit}")
        } else {
            format!("{whole}.{fraction}{unit}")
        }
    };
    let seconds = duration.as_secs();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => with_unit(3, "µs"),
        1_000_000..1_000_000_000 => with_unit(6, "ms"),
        _ if seconds < 60 => with_unit(9, "s"),
        _ => {
            let of_minute = go_duration_seconds(seconds % 60, duration.subsec_nanos());
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            if hours > 0 {
                format!("{hours}h{minutes}m{of_minute}")
            } else {
                format!("{minutes}m{of_minute}")
            }
        }
    }
}

fn go_duration_seconds(seconds: u64, nanos: u32) -> String {
    let fraction = format!("{nanos:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{seconds}s"),
        fraction => format!("{seconds}.{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::{Metrics, PeerMetrics};

    use super::*;

    #[test]
    fn durations_are_printed_as_go_prints_them() {
        let cases = [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (1_500_000, "1.5ms"),
            (45_773_667_941, "45.773667941s"),
            (60_000_000_000, "1m0s"),
            (3_723_450_000_000, "1h2m3.45s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(go_duration(Duration::from_nanos(nanos)), text);
        }
    }

    /// Check 258 of the v2 facts: the order of the fields.
    #[test]
    fn store_stats_have_etcds_fields_in_order() {
        let metrics = Metrics::new();
        metrics.store.counts(Operation::Get).count(true);
        metrics.store.counts(Operation::GetRecursive).count(true);
        metrics.store.counts(Operation::Get).count(false);
        metrics.store.counts(Operation::CompareAndSwap).count(false);
        metrics.store.expired(4);
        let guard = metrics.store.watch(1);
        assert_eq!(
            String::from_utf8(store_json(&metrics.store)).unwrap(),
            concat!(
                r#"{"getsSuccess":2,"getsFail":1,"setsSuccess":0,"setsFail":0,"deleteSuccess":0,"deleteFail":0,"#,
                r#""updateSuccess":0,"updateFail":0,"createSuccess":0,"createFail":0,"compareAndSwapSuccess":0,"#,
                r#""compareAndSwapFail":1,"compareAndDeleteSuccess":0,"compareAndDeleteFail":0,"#,
                r#""expireCount":4,"watchers":1}"#
            )
        );
        drop(guard);
    }

    #[test]
    fn leader_stats_list_each_follower() {
        let alone = leader_json(NodeId::new(0x2f), std::iter::empty());
        assert_eq!(alone, br#"{"leader":"2f","followers":{}}"#);
        let peers = PeerMetrics::default();
        let one = leader_json(
            NodeId::new(0x2f),
            std::iter::once((NodeId::new(7), peers.follower(NodeId::new(7)))),
        );
        assert_eq!(
            String::from_utf8(one).unwrap(),
            concat!(
                r#"{"leader":"2f","followers":{"7":{"latency":{"current":0,"average":0,"standardDeviation":0,"#,
                r#""minimum":9223372036854776000,"maximum":0},"counts":{"fail":0,"success":0}}}}"#
            )
        );
    }

    #[test]
    fn a_missing_leader_has_no_name_and_no_age() {
        let mut body = Vec::new();
        leader_info(&mut body, NodeId::NONE, None);
        assert_eq!(
            body,
            br#"{"leader":"","uptime":"0s","startTime":"0001-01-01T00:00:00Z"}"#
        );
    }
}
