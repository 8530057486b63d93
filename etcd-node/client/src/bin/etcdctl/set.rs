//! `etcdctl set`

use std::num::NonZeroU64;

use clap::Args;
use client::v2::Condition;

use crate::arguments::Global;
use crate::exit::Failure;
use crate::words::{KeyValue, Ttl};
use crate::{connection, output};

/// Set the value of a key.
///
/// A VALUE that begins with '-' is read as a flag; put '--' before KEY then.
#[derive(Debug, Args)]
pub(crate) struct Set {
    #[command(flatten)]
    ttl: Ttl,
    /// Only if the key has this value
    #[arg(long, default_value = "", hide_default_value = true, value_name = "VALUE")]
    swap_with_value: String,
    /// Only if the key's modified index is this
    #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "INDEX")]
    swap_with_index: u64,
    #[command(flatten)]
    words: KeyValue,
}

pub(crate) async fn run(global: &Global, set: Set) -> Result<(), Failure> {
    let (key, value) = set.words.required()?;
    let ttl = set.ttl.seconds();
    let client = connection::synced(global).await?;
    let answered = match condition(set.swap_with_value, set.swap_with_index) {
        Some(condition) => client.compare_and_swap(&key, &value, &condition, ttl).await,
        None => client.set(&key, &value, ttl).await,
    };
    let answer = answered.map_err(|error| Failure::server(&error))?;
    output::key(&answer, global.format()?)
}

/// An empty value and the index 0 mean that it was not asked for.
pub(crate) fn condition(value: String, index: u64) -> Option<Condition> {
    match (value.is_empty(), NonZeroU64::new(index)) {
        (true, None) => None,
        (false, None) => Some(Condition::Value(value)),
        (true, Some(index)) => Some(Condition::Index(index)),
        (false, Some(index)) => Some(Condition::Both(value, index)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_those_that_were_given() {
        assert_eq!(condition(String::new(), 0), None);
        let index = NonZeroU64::new(3).unwrap();
        assert_eq!(
            condition("v".to_owned(), 3),
            Some(Condition::Both("v".to_owned(), index))
        );
    }
}
