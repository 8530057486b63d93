//! A small HTTP/1 client: one connection per request, to a TCP port or a unix socket, with a deadline and
//! a bound on the answer. One connection per request is on purpose: an idle connection that the server is
//! just closing is the one place where "was it sent?" has no answer, and it does not exist here.

use std::io;
use std::time::Duration;

use ::http::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use ::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::endpoint::{Endpoint, EndpointError};

/// As many redirections as are followed; Go's clients, which everybody tested with, stop here too.
const REDIRECTS_MAX: usize = 10;

/// What a connection buffers of a head it reads; etcd's heads are a few hundred bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A connection that was quiet this long is asked for life, this often, this many times; then it is gone.
const KEEP_ALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_PROBES: u32 = 3;

/// How long and how much a request may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Until the connection stands, name resolution included.
    pub connect: Duration,
    /// Until the whole answer is here, connecting included. For [`Client::open`]: until its head is here.
    pub total: Duration,
    /// Largest body that is accepted, in bytes.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    /// One second to connect, five in all, and 64 MiB (a recursive listing of a large tree).
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            total: Duration::from_secs(5),
            body_bytes_max: 64 * 1024 * 1024,
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL, or one that the server redirected to, cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The request itself is not valid HTTP.
    #[error("the request for {endpoint} is not valid: {reason}")]
    Invalid {
        /// Where it was to go.
        endpoint: Endpoint,
        /// What is wrong.
        reason: String,
    },
    /// No connection came about; nothing was sent.
    #[error("{endpoint} cannot be reached: {source}")]
    Connect {
        /// Where.
        endpoint: Endpoint,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke after it stood, or what came back is not HTTP.
    #[error("{endpoint} gave no whole answer: {source}")]
    Broken {
        /// Where.
        endpoint: Endpoint,
        /// How.
        source: hyper::Error,
    },
    /// The deadline passed after the connection stood.
    #[error("{endpoint} did not answer within {} ms", limit.as_millis())]
    Timeout {
        /// Where.
        endpoint: Endpoint,
        /// The limit that was given.
        limit: Duration,
    },
    /// The body is larger than the limit.
    #[error("the answer of {endpoint} is larger than {limit} bytes")]
    BodyTooLarge {
        /// Where.
        endpoint: Endpoint,
        /// The limit that was given.
        limit: usize,
    },
    /// The server redirects without end, or without saying where to.
    #[error("{endpoint} redirects without end")]
    RedirectLoop {
        /// Where the last redirection came from.
        endpoint: Endpoint,
    },
}

impl Error {
    /// Whether the server certainly never saw the request, so that even a write may be tried elsewhere.
    pub fn is_before_sending(&self) -> bool {
        match self {
            Self::Endpoint(_) | Self::Invalid { .. } | Self::Connect { .. } | Self::RedirectLoop { .. } => {
                true
            }
            // hyper: the request was handed back before a byte of it was written.
            Self::Broken { source, .. } => source.is_canceled(),
            Self::Timeout { .. } | Self::BodyTooLarge { .. } => false,
        }
    }
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body, within the limit.
    pub body: Bytes,
    /// Who answered: not who was asked when there was a redirection.
    pub endpoint: Endpoint,
}

/// An answer whose body is still coming.
#[derive(Debug)]
pub struct Streaming {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Who answered.
    pub endpoint: Endpoint,
    body: Incoming,
    limits: Limits,
    _connection: AbortOnDropHandle<()>,
}

impl Streaming {
    /// The next piece of the body as the server flushed it; none at the end. Waits without a limit:
    /// give it one where the server is not meant to keep quiet. Cancel-safe.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn next_chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Broken {
                endpoint: self.endpoint.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// The rest of the body, without a limit in time.
    ///
    /// # Errors
    /// When the connection breaks or the body passes its limit.
    pub async fn rest(&mut self) -> Result<Bytes, Error> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.next_chunk().await? {
            if body.len() + chunk.len() > self.limits.body_bytes_max {
                let limit = self.limits.body_bytes_max;
                return Err(Error::BodyTooLarge {
                    endpoint: self.endpoint.clone(),
                    limit,
                });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }
}

/// Speaks to one endpoint.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: Endpoint,
    limits: Limits,
}

impl Client {
    /// A client of this endpoint; connects with each request.
    pub const fn new(endpoint: Endpoint, limits: Limits) -> Self {
        Self { endpoint, limits }
    }

    /// Sends a request, whose URI is a path and query only, and reads the whole answer.
    ///
    /// # Errors
    /// See [`Error`]; any HTTP status is an answer, not an error.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response, Error> {
        let deadline = Instant::now() + self.limits.total;
        let mut streaming = self.open_until(request, deadline).await?;
        let body = timeout_at(deadline, streaming.rest())
            .await
            .map_err(|_| self.timed_out())??;
        let Streaming {
            status,
            headers,
            endpoint,
            ..
        } = streaming;
        Ok(Response {
            status,
            headers,
            body,
            endpoint,
        })
    }

    /// As [`Self::send`], and follows redirections, of every method as etcd's clients do. A redirection
    /// says that the request was not carried out where it was sent, so a write stays written once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn follow(&self, request: Request<Bytes>) -> Result<Response, Error> {
        let mut client = self.clone();
        let mut request = request;
        for _ in 0..REDIRECTS_MAX {
            let response = client.send(request.clone()).await?;
            let Some((endpoint, target)) = redirection(&client.endpoint, response.status, &response.headers)?
            else {
                return Ok(response);
            };
            *request.uri_mut() = target.parse().map_err(|_| Error::RedirectLoop {
                endpoint: client.endpoint.clone(),
            })?;
            client.endpoint = endpoint;
        }
        Err(Error::RedirectLoop {
            endpoint: client.endpoint,
        })
    }

    /// Sends a request and returns when the answer's head is here.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn open(&self, request: Request<Bytes>) -> Result<Streaming, Error> {
        self.open_until(request, Instant::now() + self.limits.total).await
    }

    async fn open_until(&self, request: Request<Bytes>, deadline: Instant) -> Result<Streaming, Error> {
        let broken = |source| Error::Broken {
            endpoint: self.endpoint.clone(),
            source,
        };
        let request = self.complete(request)?;
        let stream = self.connect(deadline).await?;
        let exchange = async {
            let (mut sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(broken)?;
            // The task ends with the answer's body or with its handle; what goes wrong on the
            // connection arrives at the request, too.
            let connection = AbortOnDropHandle::new(tokio::spawn(async move {
                let _outcome: Result<(), hyper::Error> = connection.await;
            }));
            let response = sender.send_request(request).await.map_err(broken)?;
            Ok::<_, Error>((response, connection))
        };
        let (response, connection) = timeout_at(deadline, exchange)
            .await
            .map_err(|_| self.timed_out())??;
        let (head, body) = response.into_parts();
        Ok(Streaming {
            status: head.status,
            headers: head.headers,
            endpoint: self.endpoint.clone(),
            body,
            limits: self.limits,
            _connection: connection,
        })
    }

    fn complete(&self, request: Request<Bytes>) -> Result<Request<Full<Bytes>>, Error> {
        let invalid = |reason: &str| Error::Invalid {
            endpoint: self.endpoint.clone(),
            reason: reason.to_owned(),
        };
        let (mut head, body) = request.into_parts();
        let host =
            HeaderValue::from_str(&self.endpoint.authority()).map_err(|_| invalid("the host's name"))?;
        head.headers.insert(HOST, host);
        head.headers.insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("hawser/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(Request::from_parts(head, Full::new(body)))
    }

    async fn connect(&self, deadline: Instant) -> Result<Box<dyn Duplex>, Error> {
        let deadline = deadline.min(Instant::now() + self.limits.connect);
        let connected = timeout_at(deadline, dial(&self.endpoint))
            .await
            .unwrap_or_else(|_| {
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "no connection within the time limit",
                ))
            });
        connected.map_err(|source| Error::Connect {
            endpoint: self.endpoint.clone(),
            source,
        })
    }

    fn timed_out(&self) -> Error {
        Error::Timeout {
            endpoint: self.endpoint.clone(),
            limit: self.limits.total,
        }
    }
}

/// Fetches a URL, following redirections.
///
/// # Errors
/// See [`Error`].
pub async fn get(url: &str, limits: Limits) -> Result<Response, Error> {
    request_url(Method::GET, url, Bytes::new(), limits).await
}

/// Puts a form (already escaped: `value=a%20b&ttl=5`) at a URL, following redirections.
///
/// # Errors
/// See [`Error`].
pub async fn put_form(url: &str, form: String, limits: Limits) -> Result<Response, Error> {
    request_url(Method::PUT, url, Bytes::from(form), limits).await
}

/// Sends a request to a whole URL, following redirections; a body that is not empty is a form.
///
/// # Errors
/// See [`Error`].
pub async fn request_url(method: Method, url: &str, form: Bytes, limits: Limits) -> Result<Response, Error> {
    let (endpoint, target) = Endpoint::split(url)?;
    let request = build(method, &target, form).map_err(|reason| Error::Invalid {
        endpoint: endpoint.clone(),
        reason,
    })?;
    Client::new(endpoint, limits).follow(request).await
}

/// A request for this target; a body that is not empty is a form.
pub(crate) fn build(method: Method, target: &str, form: Bytes) -> Result<Request<Bytes>, String> {
    let mut request = Request::builder().method(method).uri(target);
    if !form.is_empty() {
        request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    request.body(form).map_err(|error| error.to_string())
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

async fn dial(endpoint: &Endpoint) -> io::Result<Box<dyn Duplex>> {
    match endpoint {
        Endpoint::Tcp { host, port, .. } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            notice_silence(&stream)?;
            Ok(Box::new(stream))
        }
        Endpoint::Unix { path } => Ok(Box::new(UnixStream::connect(path).await?)),
    }
}

/// Lets the kernel find out that a silent server is gone: a watch may wait for hours and sends nothing.
fn notice_silence(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_PROBES)?;
    Ok(())
}

/// Where a redirection leads; none when the answer is not one.
fn redirection(
    from: &Endpoint,
    status: StatusCode,
    headers: &HeaderMap,
) -> Result<Option<(Endpoint, String)>, Error> {
    let followed = [
        StatusCode::MOVED_PERMANENTLY,
        StatusCode::FOUND,
        StatusCode::TEMPORARY_REDIRECT,
        StatusCode::PERMANENT_REDIRECT,
    ];
    if !followed.contains(&status) {
        return Ok(None);
    }
    let location = headers
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(|| Error::RedirectLoop {
            endpoint: from.clone(),
        })?;
    if location.starts_with('/') && !location.starts_with("//") {
        return Ok(Some((from.clone(), location.to_owned())));
    }
    Ok(Some(Endpoint::split(location)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(location: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static(location));
        headers
    }

    #[test]
    fn redirections_stay_on_the_host_or_leave_it() {
        let from = Endpoint::parse("http://a:1").unwrap();
        let (endpoint, target) =
            redirection(&from, StatusCode::MOVED_PERMANENTLY, &headers("/v2/keys/x?y=1"))
                .unwrap()
                .unwrap();
        assert_eq!(
            (endpoint.to_string().as_str(), target.as_str()),
            ("http://a:1", "/v2/keys/x?y=1")
        );
        let (endpoint, target) = redirection(
            &from,
            StatusCode::TEMPORARY_REDIRECT,
            &headers("http://b:2/v2/keys/x"),
        )
        .unwrap()
        .unwrap();
        assert_eq!(
            (endpoint.to_string().as_str(), target.as_str()),
            ("http://b:2", "/v2/keys/x")
        );
        assert!(
            redirection(&from, StatusCode::OK, &headers("/x"))
                .unwrap()
                .is_none()
        );
        assert!(redirection(&from, StatusCode::FOUND, &HeaderMap::new()).is_err());
        assert!(redirection(&from, StatusCode::FOUND, &headers("https://b:2/")).is_err());
    }

    #[tokio::test]
    async fn a_refused_connection_was_certainly_not_sent() {
        // A listener that is closed again: its port is free, nobody answers there.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let error = get(&format!("http://127.0.0.1:{port}/"), Limits::default())
            .await
            .unwrap_err();
        assert!(error.is_before_sending(), "{error}");
    }

    #[tokio::test]
    async fn silence_after_the_request_is_a_timeout_that_may_have_been_sent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let limits = Limits {
            total: Duration::from_millis(200),
            ..Limits::default()
        };
        let (answer, accepted) = tokio::join!(get(&url, limits), listener.accept());
        accepted.unwrap();
        let error = answer.unwrap_err();
        assert!(!error.is_before_sending(), "{error}");
    }

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).await.unwrap() > 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world")
                .await
                .unwrap();
            stream
        };
        let limits = Limits {
            body_bytes_max: 10,
            ..Limits::default()
        };
        let (answer, _stream) = tokio::join!(get(&url, limits), serve);
        assert!(matches!(
            answer.unwrap_err(),
            Error::BodyTooLarge { limit: 10, .. }
        ));
    }

    #[tokio::test]
    async fn a_unix_socket_is_spoken_to_like_a_port() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let client = Client::new(Endpoint::Unix { path }, Limits::default());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await
                .unwrap();
            String::from_utf8_lossy(&head[..length]).into_owned()
        };
        let request = build(Method::GET, "/fleet/v1/machines", Bytes::new()).unwrap();
        let (answer, head) = tokio::join!(client.send(request), serve);
        assert_eq!(answer.unwrap().body, "ok");
        assert!(head.starts_with("GET /fleet/v1/machines HTTP/1.1\r\n"), "{head}");
    }
}
