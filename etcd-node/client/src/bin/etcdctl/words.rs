//! What verbs are given besides flags: a key, a value, a TTL.

use std::io::{self, Read};

use clap::Args;

use crate::exit::{Exit, Failure};

/// A value from stdin is at most this long: a longer one the server refuses anyway.
const STDIN_BYTES_MAX: u64 = 10 * 1024 * 1024;

/// A key; words after it are passed over, as etcdctl always did.
#[derive(Debug, Args)]
pub(crate) struct Key {
    /// The key
    key: Option<String>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

impl Key {
    pub(crate) fn required(&self) -> Result<&str, Failure> {
        required(self.key.as_deref())
    }

    pub(crate) fn or_root(&self) -> &str {
        self.key.as_deref().unwrap_or("/")
    }
}

/// A key and a value; words after them are passed over.
#[derive(Debug, Args)]
pub(crate) struct KeyValue {
    /// The key
    key: Option<String>,
    /// The value; without it, all of standard input as it is
    value: Option<String>,
    #[arg(hide = true)]
    rest: Vec<String>,
}

impl KeyValue {
    pub(crate) fn required(self) -> Result<(String, String), Failure> {
        let key = required(self.key.as_deref())?.to_owned();
        let value = match self.value {
            Some(value) => value,
            None => from_stdin()?,
        };
        Ok((key, value))
    }
}

/// How long a key or directory is there.
#[derive(Debug, Args)]
pub(crate) struct Ttl {
    /// Seconds after which it vanishes; 0 for never
    #[arg(
        long,
        default_value_t = 0,
        allow_negative_numbers = true,
        value_name = "SECONDS"
    )]
    ttl: i64,
}

impl Ttl {
    /// None when it is zero or less: it is there for good.
    pub(crate) fn seconds(&self) -> Option<u64> {
        u64::try_from(self.ttl).ok().filter(|seconds| *seconds > 0)
    }
}

fn required(key: Option<&str>) -> Result<&str, Failure> {
    key.ok_or_else(|| Failure::argument("key required"))
}

fn from_stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let read = io::stdin()
        .lock()
        .take(STDIN_BYTES_MAX + 1)
        .read_to_string(&mut text);
    read.map_err(|error| Failure::usage(&format!("the value cannot be read from stdin: {error}")))?;
    if text.is_empty() {
        return Err(Failure::argument("value required"));
    }
    if text.len() as u64 > STDIN_BYTES_MAX {
        let message = format!("the value on stdin is longer than {STDIN_BYTES_MAX} bytes\n");
        return Err(Failure::new(Exit::BadArguments, message));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_ttl_is_none() {
        let seconds = |ttl| Ttl { ttl }.seconds();
        assert_eq!((seconds(-5), seconds(0), seconds(5)), (None, None, Some(5)));
    }

    #[test]
    fn a_missing_key_is_said_in_the_words_of_the_original() {
        let nothing = Key {
            key: None,
            rest: Vec::new(),
        };
        assert_eq!(nothing.required().unwrap_err().message, "Error:  key required\n");
        assert_eq!(nothing.or_root(), "/");
    }
}
