//! Waiting for events: long polls, each from the index after the last event seen, so that none is missed
//! while the server's window of a thousand events reaches back far enough.

use crate::http::Streaming;
use crate::pause::Pause;
use crate::v2::keys::{answer, truth};
use crate::v2::path::{Pairs, of_key};
use crate::v2::{Answer, Call, Client, Error, number, refused};

/// Waits for one event after another on a key. It has no task of its own.
#[derive(Debug)]
pub struct Watcher<'a> {
    client: &'a Client,
    key: String,
    is_recursive: bool,
    /// The index of the first event not seen; none until "now" is known.
    next_index: Option<u64>,
    pause: Pause,
}

impl Client {
    /// Watches a key, with `is_recursive` also everything below it that is not hidden, for the events
    /// after this index; none: from now on.
    pub fn watch(&self, key: &str, is_recursive: bool, after_index: Option<u64>) -> Watcher<'_> {
        Watcher {
            client: self,
            key: key.to_owned(),
            is_recursive,
            next_index: after_index.map(|index| index.saturating_add(1)),
            pause: Pause::none(),
        }
    }
}

impl Watcher<'_> {
    /// Waits for the next event, however long it takes, across breaks of the connection. Cancel-safe.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when no endpoint answers: nothing is missed, call it again (it pauses by
    /// itself). [`Error::Refused`] with [`crate::v2::code::EVENT_INDEX_CLEARED`]: events were missed, read
    /// anew and watch from there.
    pub async fn next(&mut self) -> Result<Answer, Error> {
        loop {
            self.pause.wait().await;
            let mut streaming = self
                .client
                .open(&self.call())
                .await
                .inspect_err(|_| self.pause.lengthen())?;
            let body = streaming.rest().await;
            if !streaming.status.is_success() {
                return Err(refused(
                    &streaming.endpoint,
                    streaming.status,
                    &body.unwrap_or_default(),
                ));
            }
            match body {
                Ok(body) if !body.is_empty() => {
                    let answer = answer(&streaming.endpoint, &streaming.headers, &body)?;
                    self.next_index = Some(answer.event.node.modified_index.saturating_add(1));
                    self.pause.reset();
                    return Ok(answer);
                }
                // Cut off, by a server that ends or by a proxy that lost patience: ask again.
                _ => self.cut_off(&streaming),
            }
        }
    }

    fn call(&self) -> Call {
        let mut query = Pairs::default();
        query.add("recursive", truth(self.is_recursive));
        query.add("wait", "true");
        query.add("waitIndex", &self.next_index.unwrap_or(0).to_string());
        Call::get(query.append_to(of_key(&self.key)))
    }

    /// "Now" was when the watch was registered; from here on it has a number, and nothing falls between
    /// two polls.
    fn cut_off(&mut self, streaming: &Streaming) {
        let registered_at = number(&streaming.headers, "x-etcd-index");
        self.next_index = self
            .next_index
            .or(registered_at.map(|index| index.saturating_add(1)));
        self.pause.lengthen();
    }
}
