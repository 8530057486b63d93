//! The accept loop under every HTTP front: HTTP/1.1 and HTTP/2 (so also gRPC) on one socket, with the limits
//! that keep strangers from using the process up, and an end that lets requests finish.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::authority::Mender;
use crate::backoff::Backoff;
use crate::listen::Listener;

/// Bytes that tell HTTP/2 from HTTP/1: the length of the HTTP/2 preface (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
/// Waits when the system refuses to accept, as it does without free file descriptors: short enough that
/// nobody notices the recovery, long enough not to spin.
const ACCEPT_WAIT_MIN: Duration = Duration::from_millis(10);
const ACCEPT_WAIT_MAX: Duration = Duration::from_secs(1);
/// A client that is silent for so long is asked whether it is still there; one whose machine died must not hold
/// its connection, and its watch, forever.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Unanswered questions after which a connection is closed: within two minutes.
const KEEP_ALIVE_PROBES: u32 = 3;
/// What one HTTP/1 connection may make us hold of a head: the longest target that we can read (64 KiB) and as
/// much for the headers.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// What a client reads when all connections are in use.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

type BoxError = Box<dyn Error + Send + Sync>;

/// The limits of one accept loop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections served at once; one more is answered 503 and closed.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request, and how long an HTTP/1 connection may idle.
    pub header_timeout: Duration,
    /// How long requests may run on after the stop.
    pub drain_timeout: Duration,
    /// Streams that one HTTP/2 connection may have open at once.
    pub streams_max: u32,
}

impl Default for Options {
    /// 16384 connections, which at about 16 KiB each is a quarter of a GiB at worst and far above what a
    /// cluster's clients open; 30 s for a head; 5 s to drain; 1024 streams.
    fn default() -> Self {
        Self {
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            streams_max: 1024,
        }
    }
}

/// Who sent a request; in the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Somebody on the network.
    Tcp(SocketAddr),
    /// Somebody on this machine.
    Unix,
}

/// Serves a socket until `stop` is cancelled, then lets running requests finish within the drain timeout.
///
/// Returns when the last connection is gone. Never fails: what goes wrong with a connection ends that
/// connection, and a refused accept is retried.
pub async fn serve<S, B>(listener: Listener, service: S, options: Options, stop: CancellationToken)
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let permits = Arc::new(Semaphore::new(options.connections_max));
    let connections = TaskTracker::new();
    let mut accepting = Accepting::new(listener);
    while let Some((stream, peer)) = accepting.next(&stop).await {
        let Some(permit) = admit(&permits, &stream, &options) else {
            continue;
        };
        let connection = Connection {
            stream,
            peer,
            options: options.clone(),
            stop: stop.clone(),
            _permit: permit,
        };
        connections.spawn(connection.run(service.clone()));
    }
    connections.close();
    connections.wait().await;
}

/// A place for one more connection; without one, the client is told.
fn admit(permits: &Arc<Semaphore>, stream: &Stream, options: &Options) -> Option<OwnedSemaphorePermit> {
    if let Ok(permit) = Arc::clone(permits).try_acquire_owned() {
        return Some(permit);
    }
    warn!(
        connections_max = options.connections_max,
        "all connections are in use, refusing one more"
    );
    stream.refuse();
    None
}

/// Takes connections from the socket and waits when the system refuses.
struct Accepting {
    listener: Listener,
    backoff: Backoff,
}

impl Accepting {
    fn new(listener: Listener) -> Self {
        Self {
            listener,
            backoff: Backoff::new(ACCEPT_WAIT_MIN, ACCEPT_WAIT_MAX, crate::backoff::random_seed()),
        }
    }

    /// The next connection; none when stopped.
    async fn next(&mut self, stop: &CancellationToken) -> Option<(Stream, Peer)> {
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                accepted = accept(&self.listener) => accepted,
            };
            match accepted {
                Ok(connection) => {
                    self.backoff.reset();
                    return Some(connection);
                }
                // The client left before we came: nothing is wrong with us.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    let wait = self.backoff.next_wait();
                    warn!(%error, listener = self.listener.describe(), "cannot accept a connection, waiting");
                    tokio::select! {
                        () = stop.cancelled() => return None,
                        () = tokio::time::sleep(wait) => {}
                    }
                }
            }
        }
    }
}

async fn accept(listener: &Listener) -> io::Result<(Stream, Peer)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, addr) = listener.accept().await?;
            // Answers are written whole; waiting for more to send would only delay them.
            if let Err(error) = stream.set_nodelay(true) {
                debug!(%error, "no TCP_NODELAY");
            }
            if let Err(error) = keep_alive(&stream) {
                debug!(%error, "no TCP keep-alive");
            }
            Ok((Stream::Tcp(stream), Peer::Tcp(addr)))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((Stream::Unix(stream), Peer::Unix))
        }
    }
}

fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_tcp_keepidle(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepintvl(stream, KEEP_ALIVE)?;
    sockopt::set_tcp_keepcnt(stream, KEEP_ALIVE_PROBES)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

/// One client.
struct Connection {
    stream: Stream,
    peer: Peer,
    options: Options,
    stop: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    async fn run<S, B>(self, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let Self {
            stream,
            peer,
            options,
            stop,
            _permit,
        } = self;
        let bytes_read = Arc::new(AtomicUsize::new(0));
        let requests = Arc::new(AtomicUsize::new(0));
        let io = TokioIo::new(Counted {
            stream,
            bytes_read: Arc::clone(&bytes_read),
            mender: Mender::default(),
        });
        let counter = Arc::clone(&requests);
        let service = service_fn(move |mut request: Request<Incoming>| {
            counter.fetch_add(1, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            service.call(request)
        });
        let builder = builder(&options);
        let mut connection = pin!(builder.serve_connection_with_upgrades(io, service));
        let mut greeting = pin!(tokio::time::sleep(options.header_timeout));
        let mut greeted = false;
        loop {
            tokio::select! {
                ended = connection.as_mut() => return note(peer, ended),
                () = greeting.as_mut(), if !greeted => {
                    // hyper's own clock starts only when it knows the version. Who has not said that much
                    // by now is not going to.
                    let spoke = requests.load(Ordering::Relaxed) > 0;
                    if !spoke && bytes_read.load(Ordering::Relaxed) < PREFACE_BYTES {
                        return debug!(?peer, "closing a connection that says nothing");
                    }
                    greeted = true;
                }
                () = stop.cancelled() => break,
            }
        }
        connection.as_mut().graceful_shutdown();
        match tokio::time::timeout(options.drain_timeout, connection).await {
            Ok(ended) => note(peer, ended),
            Err(_) => debug!(?peer, "closing a connection that is still busy after the stop"),
        }
    }
}

fn builder(options: &Options) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // `X-Etcd-Index` and not `x-etcd-index`: scripts grep for the names as the originals spell them.
        .title_case_headers(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(options.header_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.streams_max);
    builder
}

fn note(peer: Peer, ended: Result<(), BoxError>) {
    if let Err(error) = ended {
        debug!(?peer, %error, "connection ended early");
    }
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Tells the client that there is no room, if it can be told without waiting.
    fn refuse(&self) {
        let told = match self {
            Self::Tcp(stream) => stream.try_write(REFUSAL),
            Self::Unix(stream) => stream.try_write(REFUSAL),
        };
        if let Err(error) = told {
            debug!(%error, "a refused client could not be told");
        }
    }
}

/// A stream that counts what it reads, up to the length that matters, and mends it ([`crate::authority`]).
struct Counted {
    stream: Stream,
    bytes_read: Arc<AtomicUsize>,
    mender: Mender,
}

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = match &mut this.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Unix(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let read = buffer.filled().len() - before;
        if read > 0 && this.bytes_read.load(Ordering::Relaxed) < PREFACE_BYTES {
            this.bytes_read.fetch_add(read, Ordering::Relaxed);
        }
        this.mender.mend(&mut buffer.filled_mut()[before..]);
        polled
    }
}

impl AsyncWrite for Counted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Full;
    use hyper::body::Bytes;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    struct Served {
        addr: SocketAddr,
        stop: CancellationToken,
        loop_: JoinHandle<()>,
        /// Lets the requests to `/slow` go on.
        release: Arc<Notify>,
        /// Told when a request to `/slow` has begun.
        begun: Arc<Notify>,
    }

    fn start(options: Options) -> Served {
        let listener = crate::listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Listener::Tcp(tcp) = &listener else {
            panic!("not a TCP listener")
        };
        let addr = tcp.local_addr().unwrap();
        let (release, begun) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wait, tell) = (Arc::clone(&release), Arc::clone(&begun));
        let service = service_fn(move |request: Request<Incoming>| {
            let (wait, tell) = (Arc::clone(&wait), Arc::clone(&tell));
            async move {
                if request.uri().path() == "/slow" {
                    tell.notify_one();
                    wait.notified().await;
                }
                let from = request.extensions().get::<Peer>().copied();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("hello {from:?}")))))
            }
        });
        let stop = CancellationToken::new();
        let loop_ = tokio::spawn(serve(listener, service, options, stop.clone()));
        Served {
            addr,
            stop,
            loop_,
            release,
            begun,
        }
    }

    async fn read_all(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut text))
            .await
            .unwrap()
            .unwrap();
        text
    }

    async fn send(addr: SocketAddr, path: &str) -> TcpStream {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_request_is_answered_and_knows_its_peer() {
        let served = start(Options::default());
        let mut stream = send(served.addr, "/").await;
        let local = stream.local_addr().unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains(&format!("Tcp({local})")), "{answer}");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_refused_at_once() {
        let served = start(Options {
            connections_max: 1,
            ..Options::default()
        });
        let mut first = send(served.addr, "/slow").await;
        served.begun.notified().await;
        let mut second = TcpStream::connect(served.addr).await.unwrap();
        assert!(read_all(&mut second).await.starts_with("HTTP/1.1 503"));
        served.release.notify_one();
        assert!(read_all(&mut first).await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn a_client_that_says_too_little_is_closed() {
        let served = start(Options {
            header_timeout: Duration::from_millis(50),
            ..Options::default()
        });
        for greeting in [
            "",
            "P",
            "GET / HT",
            "GET / HTTP/1.1\r\nhost: x\r\nlong-header-without-end: x",
        ] {
            let mut stream = TcpStream::connect(served.addr).await.unwrap();
            stream.write_all(greeting.as_bytes()).await.unwrap();
            let answer = read_all(&mut stream).await;
            assert!(!answer.contains("200"), "{greeting:?} got {answer}");
        }
    }

    #[tokio::test]
    async fn a_head_beyond_the_limit_is_refused() {
        let served = start(Options::default());
        let mut stream = TcpStream::connect(served.addr).await.unwrap();
        // Not a byte more: what stays unread would reset the connection before the answer is read.
        let begin = "GET / HTTP/1.1\r\nhost: x\r\nx: ";
        let long = format!("{begin}{}", "x".repeat(HEAD_BYTES_MAX - begin.len()));
        stream.write_all(long.as_bytes()).await.unwrap();
        let answer = read_all(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_silent_client_is_asked_whether_it_is_there() {
        let listener = crate::listen::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let Listener::Tcp(tcp) = &listener else {
            panic!("not a TCP listener")
        };
        let client = TcpStream::connect(tcp.local_addr().unwrap()).await.unwrap();
        let (Stream::Tcp(accepted), _) = accept(&listener).await.unwrap() else {
            panic!("not a TCP stream")
        };
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), KEEP_ALIVE);
        assert!(accepted.nodelay().unwrap());
        drop(client);
    }

    #[tokio::test]
    async fn the_stop_lets_a_running_request_finish() {
        let served = start(Options::default());
        let mut stream = send(served.addr, "/slow").await;
        served.begun.notified().await;
        served.stop.cancel();
        served.release.notify_one();
        assert!(read_all(&mut stream).await.starts_with("HTTP/1.1 200"));
        tokio::time::timeout(PATIENCE, served.loop_)
            .await
            .unwrap()
            .unwrap();
        assert!(
            TcpStream::connect(served.addr).await.is_err(),
            "the socket is closed"
        );
    }

    #[tokio::test]
    async fn the_stop_does_not_wait_longer_than_the_drain_timeout() {
        let served = start(Options {
            drain_timeout: Duration::from_millis(50),
            ..Options::default()
        });
        let mut stream = send(served.addr, "/slow").await;
        served.begun.notified().await;
        served.stop.cancel();
        tokio::time::timeout(PATIENCE, served.loop_)
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read_all(&mut stream).await, "");
    }

    #[tokio::test]
    async fn http2_is_spoken_on_the_same_socket() {
        let served = start(Options::default());
        let stream = TokioIo::new(TcpStream::connect(served.addr).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
            .await
            .unwrap();
        let driver = tokio::spawn(connection);
        let request = Request::get(format!("http://{}/", served.addr))
            .body(Full::new(Bytes::new()))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.version(), http::Version::HTTP_2);
        drop(sender);
        driver.await.unwrap().unwrap();
    }
}
