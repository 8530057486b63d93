//! The v3 client against a real server.

#[cfg(test)]
mod support;

use std::time::Duration;

use client::v3::{Client, Code, Config, Error, Keys, LeaseId, Transaction, compare, operation};
use proto::ids::Revision;
use proto::key::KeyRange;
use tokio::time::timeout;

use support::{free_port, server_or_skip};

/// Longer than anything here takes on a loaded machine.
const SOON: Duration = Duration::from_secs(30);

fn prefix(text: &str) -> KeyRange {
    KeyRange::prefix(text.as_bytes())
}

#[tokio::test]
async fn keys_are_written_read_compared_and_deleted() {
    let Some(server) = server_or_skip("v3 keys") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    assert_eq!(client.get("/a").await.unwrap(), None);
    let put = client.put("/a", "1", None).await.unwrap();
    let revision = Revision::new(put.header.unwrap().revision);
    let found = client.get("/a").await.unwrap().unwrap();
    assert_eq!(
        (found.value.as_ref(), found.mod_revision),
        (&b"1"[..], revision.get())
    );

    let swap = |expected| {
        Transaction::when([compare::modified_at("/a", expected)])
            .then([operation::put("/a", "2", None)])
            .or_else([operation::get(KeyRange::One("/a".into()))])
    };
    assert!(client.txn(swap(revision)).await.unwrap().succeeded);
    let second = client.txn(swap(revision)).await.unwrap();
    assert!(!second.succeeded, "the revision moved on with the first swap");
    assert_eq!(second.responses.len(), 1);

    assert_eq!(client.delete(prefix("/")).await.unwrap().deleted, 1);
    assert_eq!(client.get("/a").await.unwrap(), None);
}

#[tokio::test]
async fn a_listing_of_many_pages_is_one_revision() {
    let Some(server) = server_or_skip("v3 listing") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    let count = 2_345;
    for chunk in (0..count).collect::<Vec<_>>().chunks(100) {
        let puts = chunk
            .iter()
            .map(|number| operation::put(format!("/many/{number:05}"), "v", None));
        client.txn(Transaction::when([]).then(puts)).await.unwrap();
    }
    let other = client.put("/other", "v", None).await.unwrap();
    let listing = client.get_prefix(b"/many/").await.unwrap();
    assert_eq!(listing.key_values.len(), count);
    assert!(
        listing
            .key_values
            .is_sorted_by(|left, right| left.key < right.key)
    );
    assert_eq!(listing.revision.get(), other.header.unwrap().revision);
    assert!(client.get_prefix(b"/none/").await.unwrap().key_values.is_empty());
}

#[tokio::test]
async fn a_lease_lives_by_its_beats_and_takes_its_keys_along() {
    let Some(server) = server_or_skip("v3 lease") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    let id = LeaseId::new(0x1234).unwrap();
    let grant = client.lease_grant(60, Some(id)).await.unwrap();
    assert_eq!((grant.id, grant.ttl), (id, Duration::from_secs(60)));
    let again = client.lease_grant(60, Some(id)).await.unwrap_err();
    assert!(
        matches!(
            again,
            Error::Refused {
                code: Code::FailedPrecondition,
                ..
            }
        ),
        "{again}"
    );

    client.put("/leased", "v", Some(id)).await.unwrap();
    assert_eq!(
        client.lease_keep_alive_once(id).await.unwrap(),
        Duration::from_secs(60)
    );
    let mut beats = client.lease_keep_alive(id);
    for _ in 0..3 {
        assert_eq!(beats.beat().await.unwrap(), Duration::from_secs(60));
    }
    let left = client.lease_time_to_live(id, Keys::Listed).await.unwrap();
    assert_eq!((left.granted_ttl, left.keys), (60, vec!["/leased".into()]));
    assert_eq!(client.lease_list().await.unwrap(), vec![id]);

    client.lease_revoke(id).await.unwrap();
    assert_eq!(client.get("/leased").await.unwrap(), None);
    assert!(matches!(beats.beat().await.unwrap_err(), Error::LeaseGone { lease } if lease == id));
    assert!(matches!(
        client.lease_keep_alive_once(id).await.unwrap_err(),
        Error::LeaseGone { .. }
    ));
    assert!(matches!(
        client.lease_revoke(id).await.unwrap_err(),
        Error::LeaseGone { .. }
    ));
}

#[tokio::test]
async fn a_watch_sees_every_change_once_across_a_restart_of_the_server() {
    let Some(mut server) = server_or_skip("v3 watch across restart") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    let mut watch = client.watch(prefix("/w/"), None);
    watch.start().await.unwrap();
    let mut written = 0;
    let mut seen = Vec::new();
    for round in 0..3 {
        for _ in 0..5 {
            client.put("/w/k", written.to_string(), None).await.unwrap();
            written += 1;
        }
        if round == 1 {
            // Not read before the server is gone: these five have to be fetched again.
            server.kill();
            server.resume();
            // A write as the first word over the broken connection would be uncertain; a read finds out.
            client.get("/w/k").await.unwrap();
        }
        while seen.len() < written {
            match timeout(SOON, watch.next()).await.expect("no event in time") {
                Ok(batch) => seen.extend(batch.events.into_iter().map(|event| event.kv.unwrap().value)),
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
        }
    }
    let expected: Vec<bytes::Bytes> = (0..written).map(|number| number.to_string().into()).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_lease_is_kept_alive_across_a_restart_of_the_server() {
    let Some(mut server) = server_or_skip("v3 keep-alive across restart") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    let lease = client.lease_grant(600, None).await.unwrap().id;
    let mut beats = client.lease_keep_alive(lease);
    let ttl = Duration::from_secs(600);
    assert_eq!(
        timeout(SOON, beats.next())
            .await
            .expect("the first beat waits for nothing")
            .unwrap(),
        ttl
    );
    server.kill();
    let error = beats.beat().await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    server.resume();
    assert_eq!(timeout(SOON, beats.next()).await.unwrap().unwrap(), ttl);
}

#[tokio::test]
async fn a_write_to_a_server_that_is_gone_certainly_did_not_happen() {
    let Some(mut server) = server_or_skip("v3 server gone") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    client.put("/g", "0", None).await.unwrap();
    server.kill();
    // The first writes may meet the connection before its end is noticed.
    let outcome = timeout(SOON, async {
        loop {
            match client.put("/g", "1", None).await.unwrap_err() {
                Error::Uncertain { .. } => tokio::task::yield_now().await,
                error => return error,
            }
        }
    });
    let error = outcome.await.expect("still uncertain");
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    server.resume();
    client.put("/g", "2", None).await.unwrap();
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_reports_the_gap() {
    let Some(server) = server_or_skip("v3 compacted watch") else {
        return;
    };
    let client = Client::connect([server.url()]).unwrap();
    let mut last = Revision::ZERO;
    for number in 0..5 {
        let put = client.put("/c", number.to_string(), None).await.unwrap();
        last = Revision::new(put.header.unwrap().revision);
    }
    client.compact(last).await.unwrap();
    let mut watch = client.watch(prefix("/"), Some(Revision::FIRST));
    let error = timeout(SOON, watch.next()).await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Compacted { revision: Some(revision) } if revision == last),
        "{error}"
    );
    let error = client.compact(last).await.unwrap_err();
    assert!(matches!(error, Error::Compacted { .. }), "{error}");
}

#[tokio::test]
async fn a_dead_first_endpoint_is_passed_over_by_reads_and_writes() {
    let Some(server) = server_or_skip("v3 fail-over") else {
        return;
    };
    let dead = format!("http://127.0.0.1:{}", free_port());
    let client = Client::connect([dead.clone(), server.url()]).unwrap();
    client.put("/f", "v", None).await.unwrap();
    assert!(client.get("/f").await.unwrap().is_some());
    let members = client.member_list().await.unwrap();
    assert_eq!(members.len(), 1);
    assert_eq!(client.status().await.unwrap().leader, members[0].id);

    let nobody = Client::connect([dead]).unwrap();
    let error = nobody.put("/f", "v", None).await.unwrap_err();
    assert!(
        matches!(error, Error::Unavailable { .. }),
        "a write that was never sent is not uncertain: {error}"
    );
}

#[tokio::test]
async fn a_write_into_silence_is_uncertain_and_sent_once() {
    let Some(server) = server_or_skip("v3 uncertain") else {
        return;
    };
    // Takes connections and never says a word.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let first = format!("http://{}", silent.local_addr().unwrap());
    let config = Config {
        request_timeout: Duration::from_millis(500),
        ..Config::new([first, server.url()]).unwrap()
    };
    let client = Client::new(&config).unwrap();
    let error = client.put("/u", "v", None).await.unwrap_err();
    assert!(matches!(error, Error::Uncertain { .. }), "{error}");
    let direct = Client::connect([server.url()]).unwrap();
    assert_eq!(
        direct.get("/u").await.unwrap(),
        None,
        "the second endpoint was tried"
    );
    assert_eq!(
        client.get("/u").await.unwrap(),
        None,
        "a read goes on to the second endpoint"
    );
}
