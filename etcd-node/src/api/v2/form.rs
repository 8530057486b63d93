//! Bodies of writes: only forms are read, within limits that no number of clients can get around.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as HttpBody;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::BoxError;
use super::error::{Code, Error};

/// The largest form; Go's own limit, which clients of etcd know.
const FORM_BYTES_MAX: usize = 10 << 20;
/// Forms up to this size are read without asking: the limit on connections bounds them.
const SMALL_FORM_BYTES: usize = 16 << 10;
/// All larger forms together: more than the log takes at once (64 MiB), less than would hurt a small machine.
const LARGE_FORMS_BYTES_MAX: usize = 256 << 20;
/// How long a form may take to arrive: 10 MiB over a slow line (1 Mbit/s takes 84 s).
const FORM_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of a body that means nothing is read to keep the connection usable, as in Go.
const IGNORED_BYTES_MAX: usize = 256 << 10;
/// Budgets are counted in these, because a semaphore counts in 32 bits.
const UNIT_BYTES: usize = 1 << 10;

const FORM_TYPE: &str = "application/x-www-form-urlencoded";

/// The memory that large forms may take together.
pub(super) struct Budget {
    units: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            units: Arc::new(Semaphore::new(LARGE_FORMS_BYTES_MAX / UNIT_BYTES)),
        }
    }
}

/// A form and the room that it takes.
#[derive(Debug, Default)]
pub(super) struct Form {
    /// None when the body is not a form.
    pub(super) bytes: Option<Bytes>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Budget {
    /// Reads the form of a write. Other bodies mean nothing: such a write goes on with its query alone.
    pub(super) async fn read<B>(&self, method: &Method, headers: &HeaderMap, body: B) -> Result<Form, Error>
    where
        B: HttpBody<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        if !matches!(*method, Method::PUT | Method::POST) {
            return Ok(Form::default());
        }
        if !is_form(headers) {
            within_time(ignore(body)).await?;
            return Ok(Form::default());
        }
        let room = self.reserve(declared_length(headers))?;
        let bytes = within_time(collect(body)).await??;
        Ok(Form {
            bytes: Some(bytes),
            _room: room,
        })
    }

    /// Room for a form of this length; of the largest when the length is not known.
    fn reserve(&self, length: Option<usize>) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let length = length.unwrap_or(FORM_BYTES_MAX);
        if length > FORM_BYTES_MAX {
            return Err(Error::too_large());
        }
        if length <= SMALL_FORM_BYTES {
            return Ok(None);
        }
        let units = u32::try_from(length.div_ceil(UNIT_BYTES)).expect("10 MiB are 10240 units");
        let room = Arc::clone(&self.units).try_acquire_many_owned(units);
        room.map(Some).map_err(|_| Error::overloaded())
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else {
        return false;
    };
    let media_type = text.split(';').next().unwrap_or(text);
    media_type.trim().eq_ignore_ascii_case(FORM_TYPE)
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn within_time<T>(reading: impl Future<Output = T>) -> Result<T, Error> {
    let read = tokio::time::timeout(FORM_TIMEOUT, reading).await;
    read.map_err(|_| {
        let cause = format!("the form did not arrive within {} s", FORM_TIMEOUT.as_secs());
        Error::early(Code::InvalidForm, cause)
    })
}

async fn collect<B>(body: B) -> Result<Bytes, Error>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, FORM_BYTES_MAX).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Error::too_large()),
        Err(error) => Err(Error::early(Code::InvalidForm, error.to_string())),
    }
}

async fn ignore<B>(body: B)
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut body = std::pin::pin!(Limited::new(body, IGNORED_BYTES_MAX));
    while let Some(Ok(_)) = body.frame().await {}
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn headers(content_type: Option<&'static str>, length: Option<&'static str>) -> HeaderMap {
        let pairs = [(CONTENT_TYPE, content_type), (CONTENT_LENGTH, length)];
        let known = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.parse().unwrap())));
        known.collect()
    }

    async fn read(method: Method, content_type: Option<&'static str>) -> Option<Bytes> {
        let body = Full::new(Bytes::from_static(b"value=x"));
        Budget::default()
            .read(&method, &headers(content_type, None), body)
            .await
            .unwrap()
            .bytes
    }

    /// Checks 4 to 7 and 144 of the v2 facts.
    #[tokio::test]
    async fn only_forms_of_put_and_post_are_read() {
        assert_eq!(read(Method::PUT, Some(FORM_TYPE)).await.unwrap(), "value=x");
        let with_parameter = Some("application/x-www-form-urlencoded; param=value");
        assert_eq!(read(Method::POST, with_parameter).await.unwrap(), "value=x");
        for other in [
            None,
            Some(""),
            Some("application/json"),
            Some("text/plain"),
            Some("multipart/form-data; boundary=x"),
        ] {
            assert_eq!(read(Method::PUT, other).await, None, "{other:?}");
        }
        for method in [Method::GET, Method::HEAD, Method::DELETE] {
            assert_eq!(read(method, Some(FORM_TYPE)).await, None);
        }
    }

    /// Check 250.
    #[tokio::test]
    async fn a_form_beyond_the_limit_is_refused_declared_or_not() {
        let budget = Budget::default();
        let declared = budget
            .read(
                &Method::PUT,
                &headers(Some(FORM_TYPE), Some("10485761")),
                Full::<Bytes>::default(),
            )
            .await;
        assert_eq!(declared.unwrap_err(), Error::too_large());
        let long = Full::new(Bytes::from(vec![b'x'; FORM_BYTES_MAX + 1]));
        let streamed = budget
            .read(&Method::PUT, &headers(Some(FORM_TYPE), None), long)
            .await;
        assert_eq!(streamed.unwrap_err(), Error::too_large());
        let whole = Full::new(Bytes::from(vec![b'x'; FORM_BYTES_MAX]));
        let fits = budget
            .read(&Method::PUT, &headers(Some(FORM_TYPE), None), whole)
            .await;
        assert_eq!(fits.unwrap().bytes.unwrap().len(), FORM_BYTES_MAX);
    }

    #[test]
    fn large_forms_share_a_budget_and_small_ones_need_none() {
        let budget = Budget::default();
        let held: Vec<_> = std::iter::from_fn(|| budget.reserve(None).ok()).collect();
        assert_eq!(held.len(), LARGE_FORMS_BYTES_MAX / FORM_BYTES_MAX);
        assert_eq!(
            budget.reserve(Some(FORM_BYTES_MAX)).unwrap_err(),
            Error::overloaded()
        );
        assert!(budget.reserve(Some(SMALL_FORM_BYTES)).unwrap().is_none());
        drop(held);
        assert!(budget.reserve(None).unwrap().is_some());
    }
}
