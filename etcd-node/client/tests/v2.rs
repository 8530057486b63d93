//! The v2 client against a real server.

#[cfg(test)]
mod support;

use std::num::NonZeroU64;
use std::time::Duration;

use client::endpoint::Endpoint;
use client::http::Limits;
use client::v2::{Client, Condition, Config, Error, Read, Removal, Scope, Stats, code};
use tokio::time::timeout;

use support::{free_port, server_or_skip};

/// Longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(30);

#[cfg(test)]
fn client(urls: &[&str]) -> Client {
    let endpoints = urls.iter().map(|url| Endpoint::parse(url).unwrap()).collect();
    Client::new(Config::new(endpoints)).unwrap()
}

#[tokio::test]
async fn every_write_has_its_condition() {
    let Some(server) = server_or_skip("v2 writes") else {
        return;
    };
    let client = client(&[&server.url()]);
    let set = client.set("/a", "1", None).await.unwrap();
    assert_eq!(
        (set.event.action.as_str(), set.index),
        ("set", set.event.node.modified_index)
    );
    assert!(set.cluster_id.is_some());

    let exists = client.create("/a", "2", None).await.unwrap_err();
    assert_eq!(exists.refusal_code(), Some(code::KEY_EXISTS));
    let missing = client.update("/none", "2", None).await.unwrap_err();
    assert_eq!(missing.refusal_code(), Some(code::KEY_NOT_FOUND));

    let index = NonZeroU64::new(set.event.node.modified_index).unwrap();
    let wrong = Condition::Both("2".to_owned(), index);
    let failed = client
        .compare_and_swap("/a", "3", &wrong, None)
        .await
        .unwrap_err();
    assert_eq!(failed.refusal_code(), Some(code::COMPARE_FAILED));
    let right = Condition::Both("1".to_owned(), index);
    let swapped = client
        .compare_and_swap("/a", "3", &right, Some(100))
        .await
        .unwrap();
    assert_eq!(swapped.event.prev_node.unwrap().value.as_deref(), Some("1"));
    assert!(
        swapped
            .event
            .node
            .ttl
            .is_some_and(|ttl| (90..=100).contains(&ttl))
    );

    let refreshed = client.refresh("/a", 1000).await.unwrap().event.node;
    assert_eq!(refreshed.value.as_deref(), Some("3"));
    assert!(refreshed.ttl.is_some_and(|ttl| ttl > 900));

    let stale = client
        .compare_and_delete("/a", &Condition::Index(index))
        .await
        .unwrap_err();
    assert_eq!(stale.refusal_code(), Some(code::COMPARE_FAILED));
    client
        .compare_and_delete("/a", &Condition::Value("3".to_owned()))
        .await
        .unwrap();
    let gone = client.get("/a", Read::default()).await.unwrap_err();
    assert_eq!(gone.refusal_code(), Some(code::KEY_NOT_FOUND));
}

#[tokio::test]
async fn directories_are_made_listed_and_removed() {
    let Some(server) = server_or_skip("v2 directories") else {
        return;
    };
    let client = client(&[&server.url()]);
    client.make_directory("/d", None, Scope::New).await.unwrap();
    assert_eq!(
        client
            .make_directory("/d", None, Scope::New)
            .await
            .unwrap_err()
            .refusal_code(),
        Some(code::KEY_EXISTS)
    );
    let first = client
        .create_in_order("/d", "first & more", None)
        .await
        .unwrap()
        .event
        .node;
    let second = client
        .create_in_order("/d", "second", None)
        .await
        .unwrap()
        .event
        .node;
    client.set("/d/sub dir/\u{2603}", "x", None).await.unwrap();
    let read = Read {
        is_recursive: true,
        is_sorted: true,
        is_quorum: true,
    };
    let listed = client.get("/d", read).await.unwrap().event.node;
    let keys: Vec<&str> = listed.nodes.iter().map(|node| node.key.as_str()).collect();
    assert_eq!(keys, [&first.key, &second.key, "/d/sub dir"]);
    assert_eq!(listed.nodes[0].value.as_deref(), Some("first & more"));
    assert_eq!(listed.nodes[2].nodes[0].key, "/d/sub dir/\u{2603}");

    assert_eq!(
        client
            .delete("/d", Removal::File)
            .await
            .unwrap_err()
            .refusal_code(),
        Some(code::NOT_A_FILE)
    );
    let full = client.delete("/d", Removal::EmptyDirectory).await.unwrap_err();
    assert_eq!(full.refusal_code(), Some(code::DIRECTORY_NOT_EMPTY));
    client.delete("/d", Removal::Recursive).await.unwrap();
    let root = client.get("/", Read::default()).await.unwrap().event.node;
    assert!(root.dir && root.nodes.is_empty() && root.key.is_empty());
}

#[tokio::test]
async fn a_watch_goes_through_history_and_on_and_reports_what_it_missed() {
    let Some(server) = server_or_skip("v2 watch") else {
        return;
    };
    let client = client(&[&server.url()]);
    let before = client.set("/w/a", "0", None).await.unwrap().index;
    for value in ["1", "2", "3"] {
        client.set("/w/a", value, None).await.unwrap();
    }
    let mut watcher = client.watch("/w", true, Some(before));
    for expected in ["1", "2", "3"] {
        let answer = timeout(SOON, watcher.next()).await.unwrap().unwrap();
        assert_eq!(answer.event.node.value.as_deref(), Some(expected));
    }
    let (live, deleted) = tokio::join!(
        timeout(SOON, watcher.next()),
        client.delete("/w/a", Removal::File)
    );
    deleted.unwrap();
    assert_eq!(live.unwrap().unwrap().event.action, "delete");

    // The window holds a thousand events.
    for _ in 0..1001 {
        client.set("/other", "x", None).await.unwrap();
    }
    let mut late = client.watch("/w", true, Some(before));
    let missed = timeout(SOON, late.next()).await.unwrap().unwrap_err();
    assert_eq!(missed.refusal_code(), Some(code::EVENT_INDEX_CLEARED));
}

#[tokio::test]
async fn the_cluster_tells_about_itself() {
    let Some(server) = server_or_skip("v2 cluster") else {
        return;
    };
    let mut client = client(&[&server.url()]);
    let members = client.members().await.unwrap();
    assert_eq!(members[0].client_urls, [server.url()]);
    assert_eq!(client.leader().await.unwrap().as_ref(), members.first());
    assert_eq!(client.machines().await.unwrap(), [server.url()]);
    assert!(!client.version().await.unwrap().server.is_empty());
    assert!(
        client
            .health_of(&Endpoint::parse(&server.url()).unwrap())
            .await
            .unwrap()
    );
    let stats = client.stats(Stats::Store).await.unwrap();
    assert_eq!(stats["watchers"], 0);
    client.sync().await.unwrap();
    assert_eq!(
        client.endpoints().len(),
        1,
        "the endpoint that was given is the one that is advertised"
    );
}

#[tokio::test]
async fn a_dead_first_endpoint_is_passed_over_by_reads_and_writes() {
    let Some(server) = server_or_skip("v2 fail-over") else {
        return;
    };
    let dead = format!("http://127.0.0.1:{}", free_port());
    let both = client(&[&dead, &server.url()]);
    both.set("/f", "v", None).await.unwrap();
    both.get("/f", Read::default()).await.unwrap();
    let error = client(&[&dead]).set("/f", "v", None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_write_into_silence_is_uncertain_and_sent_once() {
    let Some(server) = server_or_skip("v2 uncertain") else {
        return;
    };
    // Takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = format!("http://{}", silent.local_addr().unwrap());
    let endpoints = [first, server.url()]
        .map(|url| Endpoint::parse(&url).unwrap())
        .to_vec();
    let limits = Limits {
        total: Duration::from_millis(500),
        ..Limits::default()
    };
    let both = Client::new(Config {
        limits,
        ..Config::new(endpoints)
    })
    .unwrap();
    let error = both.set("/u", "v", None).await.unwrap_err();
    assert!(matches!(error, Error::Uncertain { .. }), "{error}");
    let read = both.get("/u", Read::default()).await.unwrap_err();
    assert_eq!(
        read.refusal_code(),
        Some(code::KEY_NOT_FOUND),
        "only the read went on"
    );
}
