//! Traffic with other members, as `/v2/stats/self` and `/v2/stats/leader` show it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::ids::NodeId;

/// Messages that rates are taken over, as in etcd.
const RATE_MESSAGES: usize = 200;
/// A rate is shown while the newest message is at most this old, as in etcd.
const RATE_AGE_MAX: Duration = Duration::from_secs(1);
/// The minimum before the first measurement: etcd's 2^63.
const NO_MINIMUM: f64 = 9_223_372_036_854_775_808.0;

/// Messages and bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Messages per second.
    pub messages: f64,
    /// Bytes per second.
    pub bytes: f64,
}

/// Appends in one direction.
#[derive(Debug, Default)]
struct Appends {
    count: u64,
    newest: VecDeque<(Instant, usize)>,
}

impl Appends {
    fn add(&mut self, now: Instant, bytes: usize) {
        self.count += 1;
        if self.newest.len() == RATE_MESSAGES {
            self.newest.pop_front();
        }
        self.newest.push_back((now, bytes));
    }

    /// None when nothing was seen of late, or too little to tell.
    fn rates(&self, now: Instant) -> Option<Rates> {
        let ((first, _), (last, _)) = (self.newest.front()?, self.newest.back()?);
        let seconds = last.duration_since(*first).as_secs_f64();
        if now.saturating_duration_since(*last) > RATE_AGE_MAX || seconds <= 0.0 {
            return None;
        }
        let bytes: usize = self.newest.iter().map(|(_, bytes)| bytes).sum();
        Some(Rates {
            messages: self.newest.len() as f64 / seconds,
            bytes: bytes as f64 / seconds,
        })
    }
}

/// How the appends to one follower went, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Follower {
    /// Answered appends.
    pub succeeded: u64,
    /// Lost appends.
    pub failed: u64,
    /// Latency of the newest.
    pub current: f64,
    /// Least latency.
    pub minimum: f64,
    /// Greatest latency.
    pub maximum: f64,
    sum: f64,
    sum_of_squares: f64,
}

impl Default for Follower {
    fn default() -> Self {
        Self {
            succeeded: 0,
            failed: 0,
            current: 0.0,
            minimum: NO_MINIMUM,
            maximum: 0.0,
            sum: 0.0,
            sum_of_squares: 0.0,
        }
    }
}

impl Follower {
    fn add(&mut self, latency: Duration) {
        let millis = latency.as_secs_f64() * 1000.0;
        self.succeeded += 1;
        self.current = millis;
        self.minimum = self.minimum.min(millis);
        self.maximum = self.maximum.max(millis);
        self.sum += millis;
        self.sum_of_squares += millis * millis;
    }

    /// Mean latency; 0 before the first.
    pub fn average(&self) -> f64 {
        if self.succeeded == 0 {
            0.0
        } else {
            self.sum / self.succeeded as f64
        }
    }

    /// Standard deviation of the latency; 0 before the first.
    pub fn standard_deviation(&self) -> f64 {
        if self.succeeded == 0 {
            return 0.0;
        }
        let mean_of_squares = self.sum_of_squares / self.succeeded as f64;
        // Rounding may leave a hair below zero.
        (mean_of_squares - self.average().powi(2)).max(0.0).sqrt()
    }
}

/// All traffic with other members. The peers report here.
#[derive(Debug, Default)]
pub struct PeerMetrics {
    received: Mutex<Appends>,
    sent: Mutex<Appends>,
    followers: Mutex<BTreeMap<NodeId, Follower>>,
}

impl PeerMetrics {
    /// A message with entries came from the leader.
    pub fn append_received(&self, bytes: usize) {
        held(&self.received).add(Instant::now(), bytes);
    }

    /// A message with entries left for a follower.
    pub fn append_sent(&self, bytes: usize) {
        held(&self.sent).add(Instant::now(), bytes);
    }

    /// A follower answered an append, this long after it was sent.
    pub fn follower_answered(&self, follower: NodeId, latency: Duration) {
        held(&self.followers).entry(follower).or_default().add(latency);
    }

    /// An append to a follower was lost.
    pub fn follower_failed(&self, follower: NodeId) {
        held(&self.followers).entry(follower).or_default().failed += 1;
    }

    /// A new tenure begins: followers are measured anew.
    pub fn forget_followers(&self) {
        held(&self.followers).clear();
    }

    /// Appends received, and how fast they come.
    pub fn received(&self) -> (u64, Option<Rates>) {
        let received = held(&self.received);
        (received.count, received.rates(Instant::now()))
    }

    /// Appends sent, and how fast they leave.
    pub fn sent(&self) -> (u64, Option<Rates>) {
        let sent = held(&self.sent);
        (sent.count, sent.rates(Instant::now()))
    }

    /// How one follower does.
    pub fn follower(&self, id: NodeId) -> Follower {
        held(&self.followers).get(&id).copied().unwrap_or_default()
    }
}

/// Counters stay useful after a panic elsewhere.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_over_the_newest_messages_and_fade() {
        let mut appends = Appends::default();
        let start = Instant::now();
        assert_eq!(appends.rates(start), None);
        for step in 0..300 {
            appends.add(start + Duration::from_millis(10) * step, 100);
        }
        let end = start + Duration::from_millis(2990);
        let rates = appends.rates(end).unwrap();
        // The newest 200 span 1.99 s.
        assert!((rates.messages - 200.0 / 1.99).abs() < 0.01, "{rates:?}");
        assert!((rates.bytes - 20_000.0 / 1.99).abs() < 1.0, "{rates:?}");
        assert_eq!(appends.rates(end + Duration::from_millis(1001)), None);
        assert_eq!(appends.count, 300);
    }

    #[test]
    fn a_follower_starts_at_etcds_values_and_is_measured() {
        let peers = PeerMetrics::default();
        let id = NodeId::new(3);
        assert_eq!(peers.follower(id).minimum, 2.0_f64.powi(63));
        for millis in [1, 2, 3] {
            peers.follower_answered(id, Duration::from_millis(millis));
        }
        peers.follower_failed(id);
        let follower = peers.follower(id);
        assert_eq!((follower.succeeded, follower.failed), (3, 1));
        assert!((follower.average() - 2.0).abs() < 1e-9);
        assert!((follower.standard_deviation() - (2.0_f64 / 3.0).sqrt()).abs() < 1e-9);
        assert!((follower.current - 3.0).abs() < 1e-9 && (follower.minimum - 1.0).abs() < 1e-9);
        peers.forget_followers();
        assert_eq!(peers.follower(id), Follower::default());
    }
}
