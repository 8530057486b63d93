//! Answers of a streaming call, written as one plain async function.
//!
//! The function runs inside the response stream: it is polled when the client can take more, and dropped, with
//! everything it holds, when the client is gone. So there is no task to own, no channel to bound, and a slow
//! client holds up its own function and nothing else.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio_stream::Stream;
use tonic::Status;

type Slot<T> = Arc<Mutex<Option<T>>>;

type Running = Pin<Box<dyn Future<Output = Result<(), Status>> + Send>>;

fn take<T>(slot: &Slot<T>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// Where the function puts its answers.
pub(super) struct Outlet<T>(Slot<T>);

impl<T> Outlet<T> {
    /// Sends one answer; ready when the client's side has taken it.
    pub(super) async fn send(&self, item: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(item);
        // The stream takes the item as soon as this poll returns, and polls again when it wants the next.
        poll_fn(|_| match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(_) => Poll::Pending,
            None => Poll::Ready(()),
        })
        .await;
    }
}

/// A stream of what a function sends; ends with it, with its error if it failed.
pub(super) struct Answers<T> {
    running: Option<Running>,
    slot: Slot<T>,
}

/// The stream of this function's answers.
pub(super) fn answers<T, F>(function: impl FnOnce(Outlet<T>) -> F) -> Answers<T>
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let slot = Slot::default();
    let running = function(Outlet(Arc::clone(&slot)));
    Answers {
        running: Some(Box::pin(running)),
        slot,
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(running) = &mut self.running else {
            return Poll::Ready(None);
        };
        let polled = running.as_mut().poll(context);
        if let Some(item) = take(&self.slot) {
            debug_assert!(
                polled.is_pending(),
                "a function that sends waits until it is taken"
            );
            return Poll::Ready(Some(Ok(item)));
        }
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(end) => {
                self.running = None;
                Poll::Ready(end.err().map(Err))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn answers_come_in_order_and_the_error_last() {
        let stream = answers(|out| async move {
            for number in 0..3 {
                out.send(number).await;
                tokio::task::yield_now().await;
            }
            Err(Status::unavailable("over"))
        });
        let all: Vec<_> = stream
            .map(|item| item.map_err(|status| status.message().to_owned()))
            .collect()
            .await;
        assert_eq!(all, [Ok(0), Ok(1), Ok(2), Err("over".to_owned())]);
    }

    #[tokio::test]
    async fn a_function_waits_for_its_client_and_dies_with_it() {
        let witness = Arc::new(());
        let held = Arc::clone(&witness);
        let mut stream = answers(|out| async move {
            loop {
                out.send(Arc::strong_count(&held)).await;
            }
        });
        assert!(stream.next().await.is_some());
        assert_eq!(Arc::strong_count(&witness), 2);
        drop(stream);
        assert_eq!(Arc::strong_count(&witness), 1);
    }

    #[tokio::test]
    async fn an_end_without_error_ends_the_stream() {
        let mut stream = answers(|_: Outlet<u8>| async { Ok(()) });
        assert!(stream.next().await.is_none());
        assert!(stream.next().await.is_none());
    }
}
