//! HTTP/1 by hand: what is sent is written out, what comes back is seen as it stands on the wire.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) version: String,
    pub(crate) status: u16,
    /// Names as they were spelled.
    pub(crate) headers: Vec<(String, String)>,
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// One connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self {
            stream: TcpStream::connect(address).await.unwrap(),
            buffer: Vec::new(),
        }
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Sends a request with a form, when there is one.
    pub(crate) async fn request(&mut self, method: &str, path: &str, form: Option<&str>) {
        let request = match form {
            None => format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
            Some(form) => format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
                 Content-Length: {}\r\n\r\n{form}",
                form.len()
            ),
        };
        self.write(request.as_bytes()).await;
    }

    /// Sends a request and reads its whole answer; the connection stays.
    pub(crate) async fn call(&mut self, method: &str, path: &str, form: Option<&str>) -> Answer {
        self.request(method, path, form).await;
        let head = self.head().await;
        let body = self.body(&head, method).await;
        Answer { head, body }
    }

    /// False at the end of the connection.
    async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        read.expect("no bytes in time").unwrap() > 0
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).unwrap();
            }
            assert!(self.fill().await, "the connection ended within a line");
        }
    }

    /// The head of the next answer; `100 Continue` is passed over.
    pub(crate) async fn head(&mut self) -> Head {
        loop {
            let first = self.line().await;
            let mut words = first.splitn(3, ' ');
            let version = words.next().unwrap().to_owned();
            let status = words.next().unwrap().parse().unwrap();
            let mut headers = Vec::new();
            loop {
                let line = self.line().await;
                let Some((name, value)) = line.split_once(": ") else {
                    break;
                };
                headers.push((name.to_owned(), value.to_owned()));
            }
            if status != 100 {
                return Head {
                    version,
                    status,
                    headers,
                };
            }
        }
    }

    /// The rest of the answer.
    pub(crate) async fn body(&mut self, head: &Head, method: &str) -> Vec<u8> {
        if method == "HEAD" {
            return Vec::new();
        }
        if let Some(length) = head.header("content-length") {
            let length = length.parse().unwrap();
            while self.buffer.len() < length {
                assert!(self.fill().await, "the connection ended within a body");
            }
            return self.buffer.drain(..length).collect();
        }
        let mut body = Vec::new();
        if head.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk().await {
                body.extend(chunk);
            }
            return body;
        }
        while self.fill().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The next piece of a chunked body; none at its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line().await, 16).unwrap();
        while self.buffer.len() < length + 2 {
            assert!(self.fill().await, "the connection ended within a chunk");
        }
        let chunk: Vec<u8> = self.buffer.drain(..length + 2).take(length).collect();
        (length > 0).then_some(chunk)
    }

    /// The next piece as text.
    pub(crate) async fn event(&mut self) -> String {
        String::from_utf8(self.chunk().await.expect("the body ended")).unwrap()
    }

    /// Whether nothing more has come within this time. Can be wrong in one way only: it may not see what is late.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let moment = std::time::Duration::from_millis(100);
        self.buffer.is_empty() && timeout(moment, self.fill()).await.is_err()
    }

    /// Whether the server has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }
}

/// One request on its own connection.
pub(crate) async fn call(address: SocketAddr, method: &str, path: &str, form: Option<&str>) -> Answer {
    Connection::open(address).await.call(method, path, form).await
}

/// Begins a watch and reads its head: from then on it is registered.
pub(crate) async fn watch(address: SocketAddr, path: &str) -> (Connection, Head) {
    let mut connection = Connection::open(address).await;
    connection.request("GET", path, None).await;
    let head = connection.head().await;
    (connection, head)
}
