//! Laws of the hub: who hears of what, once, in order, and what happens to the slow.

use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use proto::ids::V2Index;
use store::mvcc::Record;
use store::v2::{Action, Event, Node};
use store::{Change, KeyWrite};

use super::super::QUEUE_CHANGES_MAX;
use super::*;

fn change(revision: i64) -> Change {
    Change {
        revision: Revision::new(revision),
        writes: Vec::new(),
        events: Vec::new(),
        removed_directories: Vec::new(),
    }
}

/// A v3 change that writes these keys.
fn keys(revision: i64, keys: &[&str]) -> Arc<Change> {
    let write = |key: &&str| {
        let record = Record {
            value: Bytes::from_static(b"v"),
            create_revision: Revision::new(revision),
            mod_revision: Revision::new(revision),
            version: 1,
            lease: 0,
            created_index: V2Index::ZERO,
            modified_index: V2Index::ZERO,
            expires_at: None,
        };
        KeyWrite {
            key: Bytes::copy_from_slice(key.as_bytes()),
            record: Some(Arc::new(record)),
            prev: None,
        }
    };
    Arc::new(Change {
        writes: keys.iter().map(write).collect(),
        ..change(revision)
    })
}

fn event(path: &str, is_refresh: bool) -> Arc<Event> {
    Arc::new(Event {
        action: Action::Set,
        node: Node {
            key: path.to_owned(),
            ..Node::default()
        },
        prev_node: None,
        index: V2Index::new(4),
        is_refresh,
    })
}

/// A v2 change with an event at this path.
fn path(revision: i64, path: &str) -> Arc<Change> {
    Arc::new(Change {
        events: vec![event(path, false)],
        ..change(revision)
    })
}

fn one(key: &str) -> Interest {
    Interest::Keys(KeyRange::One(Bytes::copy_from_slice(key.as_bytes())))
}

fn span(start: &str, end: &str) -> Interest {
    let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    Interest::Keys(KeyRange::Span {
        start: bytes(start),
        end: bytes(end),
    })
}

fn from(start: &str) -> Interest {
    Interest::Keys(KeyRange::From(Bytes::copy_from_slice(start.as_bytes())))
}

fn exact(path: &str) -> Interest {
    Interest::Path {
        path: path.to_owned(),
        recursive: false,
    }
}

fn tree(path: &str) -> Interest {
    Interest::Path {
        path: path.to_owned(),
        recursive: true,
    }
}

/// Revisions that wait for this subscription, and whether it lags behind them.
fn waiting(subscription: &mut Subscription) -> (Vec<i64>, bool) {
    let mut revisions = Vec::new();
    loop {
        match subscription.attached.take() {
            Some(Next::Change(change)) => revisions.push(change.revision.get()),
            Some(Next::Lagged) => return (revisions, true),
            None => return (revisions, false),
        }
    }
}

#[test]
fn v3_subscribers_hear_of_writes_in_their_range() {
    let table = [
        (one("b"), vec![2, 4]),
        (span("b", "d"), vec![2, 3, 4]),
        (span("c", "d"), vec![3]),
        (from("b"), vec![2, 3, 4]),
        (from("x"), vec![]),
        (span("d", "b"), vec![]),
        (exact("/b"), vec![]),
    ];
    for (interest, expected) in table {
        let hub = Hub::new(Revision::FIRST);
        let mut subscription = hub.subscribe(interest.clone(), Revision::FIRST);
        hub.publish(&[keys(2, &["b"]), keys(3, &["c"])]);
        hub.publish(&[keys(4, &["a", "b", "bb"])]);
        assert_eq!(waiting(&mut subscription), (expected, false), "{interest:?}");
    }
}

#[test]
fn v2_subscribers_hear_of_events_at_and_below_their_path() {
    let mut removal = change(6);
    removal.events = vec![event("/a", false)];
    removal.removed_directories = vec!["/a".into(), "/a/b".into()];
    let mut refresh = change(7);
    refresh.events = vec![event("/a/b", true)];
    let changes = [
        path(2, "/a"),
        path(3, "/a/b"),
        path(4, "/a/b/c"),
        path(5, "/ab"),
        Arc::new(removal),
        Arc::new(refresh),
    ];
    let table = [
        (exact("/a"), vec![2, 6]),
        (tree("/a"), vec![2, 3, 4, 6]),
        (exact("/a/b"), vec![3, 6]),
        (tree("/a/b"), vec![3, 4, 6]),
        (exact("/a/b/gone"), vec![6]),
        (tree("/a/b/gone"), vec![6]),
        (exact("/ab"), vec![5]),
        (exact("/"), vec![]),
        (tree("/"), vec![2, 3, 4, 5, 6]),
        (one("/a"), vec![]),
    ];
    for (interest, expected) in table {
        let hub = Hub::new(Revision::FIRST);
        let mut subscription = hub.subscribe(interest.clone(), Revision::FIRST);
        hub.publish(&changes);
        assert_eq!(waiting(&mut subscription), (expected, false), "{interest:?}");
    }
}

#[test]
fn a_change_comes_once_although_several_of_its_writes_match() {
    let hub = Hub::new(Revision::FIRST);
    let mut subscription = hub.subscribe(span("a", "z"), Revision::FIRST);
    hub.publish(&[keys(2, &["a", "b", "c"])]);
    assert_eq!(waiting(&mut subscription), (vec![2], false));
}

#[test]
fn what_the_subscriber_has_seen_never_comes_again() {
    let hub = Hub::new(Revision::FIRST);
    let mut subscription = hub.subscribe(one("a"), Revision::new(3));
    hub.publish(&[keys(2, &["a"]), keys(3, &["a"]), keys(4, &["a"])]);
    assert_eq!(waiting(&mut subscription), (vec![4], false));
}

#[test]
fn a_full_queue_lags_after_what_was_queued_and_takes_no_more() {
    let hub = Hub::new(Revision::FIRST);
    let mut slow = hub.subscribe(one("a"), Revision::FIRST);
    let mut other = hub.subscribe(one("b"), Revision::FIRST);
    let end = 2 + i64::try_from(QUEUE_CHANGES_MAX).unwrap();
    let batch: Vec<_> = (2..end + 2).map(|revision| keys(revision, &["a"])).collect();
    hub.publish(&batch[..100]);
    hub.publish(&batch[100..]);
    hub.publish(&[keys(end + 2, &["a", "b"])]);
    assert_eq!(waiting(&mut slow), ((2..end).collect(), true));
    assert_eq!(waiting(&mut slow), (vec![], true), "lagging is for good");
    assert_eq!(
        waiting(&mut other),
        (vec![end + 2], false),
        "others are not held up"
    );
}

#[test]
fn a_queue_of_exactly_the_maximum_does_not_lag() {
    let hub = Hub::new(Revision::FIRST);
    let mut subscription = hub.subscribe(one("a"), Revision::FIRST);
    let end = 2 + i64::try_from(QUEUE_CHANGES_MAX).unwrap();
    for round in [0, end] {
        let batch: Vec<_> = (2..end).map(|revision| keys(round + revision, &["a"])).collect();
        hub.publish(&batch);
        let expected = (2..end).map(|revision| round + revision).collect();
        assert_eq!(waiting(&mut subscription), (expected, false));
    }
}

#[test]
fn an_interrupt_ends_every_subscription_after_what_was_queued() {
    let hub = Hub::new(Revision::FIRST);
    let mut key = hub.subscribe(one("a"), Revision::FIRST);
    let mut all = hub.subscribe(tree("/"), Revision::FIRST);
    hub.publish(&[keys(2, &["a"])]);
    hub.interrupt(Revision::new(40));
    hub.publish(&[keys(41, &["a"])]);
    assert_eq!(waiting(&mut key), (vec![2], true));
    assert_eq!(waiting(&mut all), (vec![], true));
    assert_eq!(hub.published().get(), 41);
    assert_eq!(hub.subscribers(), 2);
    drop((key, all));
    assert_eq!(hub.subscribers(), 0);
}

#[test]
fn published_never_goes_back() {
    let hub = Hub::new(Revision::new(5));
    hub.interrupt(Revision::new(3));
    assert_eq!(hub.published().get(), 5);
    hub.publish(&[]);
    assert_eq!(hub.published().get(), 5);
    hub.publish(&[keys(6, &["a"]), keys(7, &["a"])]);
    assert_eq!(hub.published().get(), 7);
}

#[test]
fn dropping_a_subscription_forgets_it() {
    let hub = Hub::new(Revision::FIRST);
    let first = hub.subscribe(span("a", "b"), Revision::FIRST);
    let mut second = hub.subscribe(span("a", "b"), Revision::FIRST);
    assert_eq!(hub.subscribers(), 2);
    drop(first);
    assert_eq!(hub.subscribers(), 1);
    hub.publish(&[keys(2, &["a"])]);
    assert_eq!(waiting(&mut second), (vec![2], false));
    drop(second);
    assert_eq!(hub.subscribers(), 0);
    let mut third = hub.subscribe(span("a", "b"), Revision::FIRST);
    hub.publish(&[keys(3, &["a"])]);
    assert_eq!(waiting(&mut third), (vec![3], false));
}

#[test]
fn taking_up_to_a_revision_leaves_the_rest_and_the_bell() {
    let hub = Hub::new(Revision::FIRST);
    let bell = Bell::new();
    let mut attached = hub.attach(one("a"), Revision::FIRST, &bell, 7);
    hub.publish(&[keys(2, &["a"]), keys(3, &["a"])]);
    assert!(
        matches!(attached.take_until(Revision::new(2)), Some(Next::Change(change)) if change.revision.get() == 2)
    );
    assert!(attached.take_until(Revision::new(2)).is_none());
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(pin!(bell.rung()).poll(&mut context), Poll::Ready(7));
    assert!(matches!(attached.take(), Some(Next::Change(change)) if change.revision.get() == 3));
    assert!(attached.take().is_none());
    assert_eq!(pin!(bell.rung()).poll(&mut context), Poll::Pending);
}

#[test]
fn taking_up_to_a_revision_tells_of_what_was_lost_before_it() {
    let hub = Hub::new(Revision::FIRST);
    let mut subscription = hub.subscribe(one("a"), Revision::FIRST);
    hub.publish(&[keys(2, &["a"]), keys(5, &["a"])]);
    hub.interrupt(Revision::new(9));
    let attached = &mut subscription.attached;
    assert!(matches!(
        attached.take_until(Revision::new(4)),
        Some(Next::Change(_))
    ));
    assert!(
        attached.take_until(Revision::new(4)).is_none(),
        "nothing up to 4 was lost: 5 is still queued"
    );
    assert!(matches!(
        attached.take_until(Revision::new(9)),
        Some(Next::Change(_))
    ));
    assert!(matches!(
        attached.take_until(Revision::new(9)),
        Some(Next::Lagged)
    ));
}

#[test]
fn one_bell_serves_many_seats_and_rings_once_for_each() {
    let hub = Hub::new(Revision::FIRST);
    let bell = Bell::new();
    let mut a = hub.attach(one("a"), Revision::FIRST, &bell, 1);
    let mut b = hub.attach(one("b"), Revision::FIRST, &bell, 2);
    hub.publish(&[keys(2, &["a"])]);
    hub.publish(&[keys(3, &["a"]), keys(4, &["b"])]);
    let mut context = Context::from_waker(Waker::noop());
    let mut tokens = Vec::new();
    while let Poll::Ready(token) = pin!(bell.rung()).poll(&mut context) {
        tokens.push(token);
    }
    assert_eq!(tokens, [1, 2]);
    assert!(a.take().is_some() && a.take().is_some() && a.take().is_none());
    assert!(b.take().is_some() && b.take().is_none());
    hub.publish(&[keys(5, &["a"])]);
    assert_eq!(
        pin!(bell.rung()).poll(&mut context),
        Poll::Ready(1),
        "an emptied seat rings again"
    );
}

#[test]
fn a_bell_rings_when_a_revision_was_published() {
    let hub = Hub::new(Revision::FIRST);
    let bell = Bell::new();
    hub.ring_when_published(Revision::new(3), &bell, 9);
    let mut context = Context::from_waker(Waker::noop());
    hub.publish(&[keys(2, &["a"])]);
    assert_eq!(pin!(bell.rung()).poll(&mut context), Poll::Pending);
    hub.publish(&[keys(3, &["a"])]);
    assert_eq!(pin!(bell.rung()).poll(&mut context), Poll::Ready(9));
    hub.ring_when_published(Revision::new(3), &bell, 10);
    assert_eq!(
        pin!(bell.rung()).poll(&mut context),
        Poll::Ready(10),
        "already there"
    );
}

#[tokio::test]
async fn a_waiting_task_is_woken_and_a_dropped_wait_loses_nothing() {
    let hub = Arc::new(Hub::new(Revision::FIRST));
    let mut subscription = hub.subscribe(one("a"), Revision::FIRST);
    // A wait that is given up, as in a `select!`, before anything came.
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(subscription.next()).poll(&mut context).is_pending());
    let publisher = tokio::spawn({
        let hub = Arc::clone(&hub);
        async move { (2..50).for_each(|revision| hub.publish(&[keys(revision, &["a"])])) }
    });
    for expected in 2..50 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), subscription.next());
        match next.await.expect("a change in time") {
            Next::Change(change) => assert_eq!(change.revision.get(), expected),
            Next::Lagged => panic!("48 changes fit the queue"),
        }
    }
    publisher.await.unwrap();
}

/// Ten thousand subscribers of each kind at once; every one hears of exactly its own.
#[test]
fn ten_thousand_subscribers() {
    let hub = Hub::new(Revision::FIRST);
    let bell = Bell::new();
    let count = 10_000_i64;
    let mut seats = Vec::new();
    for number in 0..count {
        let token = u64::try_from(seats.len()).unwrap();
        let key = format!("/k/{number:05}");
        let interest = match number % 4 {
            0 => one(&key),
            1 => span(&key, &format!("{key}0")),
            2 => exact(&key),
            _ => tree(&key),
        };
        seats.push(hub.attach(interest, Revision::FIRST, &bell, token));
    }
    assert_eq!(hub.subscribers(), 10_000);
    let batch: Vec<Arc<Change>> = (0..count)
        .map(|number| {
            let key = format!("/k/{number:05}");
            let both = Change {
                events: vec![event(&key, false)],
                ..(*keys(number + 2, &[&key])).clone()
            };
            Arc::new(both)
        })
        .collect();
    hub.publish(&batch);
    for (number, seat) in (0..count).zip(&mut seats) {
        assert!(matches!(seat.take(), Some(Next::Change(change)) if change.revision.get() == number + 2));
        assert!(seat.take().is_none(), "seat {number} hears of its own alone");
    }
    // The same ten thousand on one range: each is offered the one change.
    let mut crowd: Vec<_> = (0..10_000)
        .map(|token| hub.attach(from("/z"), Revision::new(20_000), &bell, token))
        .collect();
    hub.publish(&[keys(20_001, &["/zz"])]);
    assert!(
        crowd
            .iter_mut()
            .all(|seat| matches!(seat.take(), Some(Next::Change(_))))
    );
    drop((seats, crowd));
    assert_eq!(hub.subscribers(), 0);
}
