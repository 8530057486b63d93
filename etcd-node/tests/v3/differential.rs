//! The same calls to our node and to a stock etcd 3.4, answers compared field by field: what differs is a bug.
//!
//! Not compared: cluster and member ids, terms, the seconds left of a lease, the order of a lease's keys
//! (random in the original), how events are cut into responses, watches from exactly the compacted revision.
//!
//! `V3_DIFFERENTIAL_SEED=n` runs that seed alone, `V3_DIFFERENTIAL_CALLS=n` that many calls of each seed.
//! A failure prints the seed and the last calls.

use std::collections::VecDeque;

use crate::calls::{Call, Caller, Maker};
use crate::support::ours::Ours;
use crate::support::stock::Stock;
use crate::support::{Clients, Draw};

/// Seeds of an ordinary run.
const SEEDS: std::ops::Range<u64> = 1..7;

/// Calls of each seed: with an fsync for each write of each side, a few seconds.
const CALLS: usize = 400;

/// Calls that a failure shows.
const CALLS_SHOWN: usize = 8;

fn number<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {text}")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn ours_answers_as_stock_etcd_does() {
    if Stock::start().await.is_none() {
        return;
    }
    let seeds = number::<u64>("V3_DIFFERENTIAL_SEED").map_or(SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        compare(seed, number("V3_DIFFERENTIAL_CALLS").unwrap_or(CALLS)).await;
    }
}

async fn compare(seed: u64, calls: usize) {
    let stock = Stock::start().await.expect("it started a moment ago");
    let ours = Ours::start().await;
    let mut theirs = Caller::new(Clients::connect(&stock.url)).await;
    let mut mine = Caller::new(ours.clients()).await;
    let mut maker = Maker::new(Draw(seed));
    let mut last: VecDeque<Call> = VecDeque::new();
    for step in 0..calls {
        let call = maker.next();
        if last.len() == CALLS_SHOWN {
            last.pop_front();
        }
        last.push_back(call.clone());
        if matches!(call, Call::Unwatch(_) | Call::Compact(_)) {
            // A watch may not yet have shown what the call cuts off.
            tokio::join!(theirs.settle(), mine.settle());
            agree(seed, &mine, &theirs, &mut maker).await;
        }
        let (expected, got) = tokio::join!(theirs.perform(&call), mine.perform(&call));
        assert_eq!(
            got, expected,
            "ours (left) differs at step {step} of seed {seed}: {last:#?}"
        );
        maker.learn(&expected);
    }
    tokio::join!(theirs.settle(), mine.settle());
    agree(seed, &mine, &theirs, &mut maker).await;
    // Progress comes after all events: ours has nothing more to show than stock etcd had.
    mine.watching.progress().await;
    assert_eq!(mine.watching.seen(), theirs.watching.seen(), "seed {seed}");
    mine.watching.check();
}

/// Both sides have the same watches: they show the same, whatever way it is cut into responses.
async fn agree(seed: u64, mine: &Caller, theirs: &Caller, maker: &mut Maker) {
    if let Err((mine, theirs)) = mine.watching.agree(&theirs.watching).await {
        for (id, expected) in &theirs {
            assert_eq!(mine.get(id), Some(expected), "watch {id} of seed {seed}");
        }
        panic!("ours has watches that stock etcd has not, seed {seed}: {mine:#?}");
    }
    let seen = theirs.watching.seen();
    for id in seen
        .iter()
        .filter(|(_, seen)| seen.ended.is_some())
        .map(|(id, _)| id)
    {
        maker.forget_watch(*id);
    }
}
