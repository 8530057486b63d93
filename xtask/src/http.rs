//! The smallest HTTP client that can talk to a node: one connection, one request at a time, bounded answers.

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A node that does not answer within this is not well.
const TIMEOUT: Duration = Duration::from_secs(2);
/// No answer that is asked for here is longer: the longest lists every key of a load.
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// All headers of an answer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// An answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Headers,
    pub(crate) body: String,
}

impl Answer {
    /// The first header of this name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// A connection that is kept between requests.
pub(crate) struct Connection {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects from the network namespace of the calling thread; the connection stays in it.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let open = || -> Result<TcpStream> {
            let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            stream.set_write_timeout(Some(TIMEOUT))?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = open().with_context(|| format!("connect to {address}"))?;
        Ok(Self {
            address,
            stream: BufReader::new(stream),
        })
    }

    /// Asks for a path.
    pub(crate) fn get(&mut self, path: &str) -> Result<Answer> {
        self.request("GET", path, "")
    }

    /// Puts a form (`value=a`).
    ///
    /// # Errors
    /// Whatever they say, the request may have been carried out.
    pub(crate) fn put(&mut self, path: &str, form: &str) -> Result<Answer> {
        self.request("PUT", path, form)
    }

    /// Hands on what somebody else asked.
    pub(crate) fn hand_on(&mut self, request: &Request) -> Result<Answer> {
        self.request(&request.method, &request.path, &request.form)
    }

    /// Waits for answers that take as long as they like, as those to `wait=true` do.
    pub(crate) fn wait_longer(&self) -> Result<()> {
        Ok(self.stream.get_ref().set_read_timeout(None)?)
    }

    fn request(&mut self, method: &str, path: &str, form: &str) -> Result<Answer> {
        let address = self.address;
        let text = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
            form.len()
        );
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        let answer = sent.map_err(Into::into).and_then(|()| read(&mut self.stream));
        let answer = answer.map_err(named_silence);
        answer.with_context(|| format!("ask http://{address}{path}"))
    }
}

/// A time-out of a socket is `EAGAIN`, whose text would tell a person to try again.
fn named_silence(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
        Some(ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            anyhow!("no answer within {} s", TIMEOUT.as_secs())
        }
        _ => error,
    }
}

/// A request as a server reads it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    form: String,
}

impl Request {
    /// The next request of a connection; none when the caller has hung up.
    pub(crate) fn read(stream: &mut BufReader<impl Read>) -> Result<Option<Self>> {
        if stream.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let (first, headers) = head(stream)?;
        let mut words = first.split(' ').map(str::to_owned);
        let (method, path) = words.next().zip(words.next()).context("a request names a path")?;
        let form = String::from_utf8(body(stream, &headers, Vec::new())?)?;
        Ok(Some(Self { method, path, form }))
    }
}

/// An answer as a server writes it.
pub(crate) fn rendered(answer: &Answer) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {} \r\n", answer.status);
    for (name, value) in &answer.headers {
        if !["transfer-encoding", "content-length", "connection"].contains(&name.as_str()) {
            text += &format!("{name}: {value}\r\n");
        }
    }
    text += &format!("content-length: {}\r\n\r\n{}", answer.body.len(), answer.body);
    text.into_bytes()
}

/// Asks for `path` from the network namespace of the calling thread.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    Connection::open(address)?.get(path)
}

fn read(stream: &mut BufReader<impl Read>) -> Result<Answer> {
    let (first, headers) = head(stream)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("the answer has no status: `{first}`"))?;
    let mut rest = Vec::new();
    if header(&headers, "content-length").is_none() && header(&headers, "transfer-encoding").is_none() {
        // Its end is the end of the connection.
        stream.take(BODY_BYTES_MAX).read_to_end(&mut rest)?;
    }
    let body = body(stream, &headers, rest)?;
    Ok(Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

type Headers = Vec<(String, String)>;

/// The first line and the headers, their names in lower case.
fn head(stream: &mut BufReader<impl Read>) -> Result<(String, Headers)> {
    let mut head = stream.take(HEAD_BYTES_MAX);
    let first = line(&mut head)?;
    let mut headers = Vec::new();
    loop {
        let line = line(&mut head)?;
        if line.is_empty() {
            return Ok((first, headers));
        }
        let (name, value) = line.split_once(':').with_context(|| format!("header `{line}`"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
}

fn header<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers
        .iter()
        .find(|(found, _)| found == name)
        .map(|(_, value)| value.as_str())
}

/// The body that the headers announce, else `otherwise`.
fn body(stream: &mut BufReader<impl Read>, headers: &Headers, otherwise: Vec<u8>) -> Result<Vec<u8>> {
    match (
        header(headers, "transfer-encoding"),
        header(headers, "content-length"),
    ) {
        (Some("chunked"), _) => chunks(stream),
        (_, Some(length)) => {
            let length = length
                .parse()
                .with_context(|| format!("content-length `{length}`"))?;
            exactly(stream, length)
        }
        (_, None) => Ok(otherwise),
    }
}

fn chunks(stream: &mut BufReader<impl Read>) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let size = line(&mut stream.by_ref().take(HEAD_BYTES_MAX))?;
        let size = u64::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size `{size}`"))?;
        body.extend(exactly(stream, size)?);
        ensure!(
            line(&mut stream.by_ref().take(HEAD_BYTES_MAX))?.is_empty(),
            "a chunk is longer than its size"
        );
        if size == 0 {
            return Ok(body);
        }
    }
}

fn exactly(stream: &mut BufReader<impl Read>, length: u64) -> Result<Vec<u8>> {
    ensure!(
        length <= BODY_BYTES_MAX,
        "the answer has {length} bytes, more than {BODY_BYTES_MAX}"
    );
    let mut body = Vec::new();
    let found = stream.take(length).read_to_end(&mut body)?;
    ensure!(found as u64 == length, "the answer ends within its body");
    Ok(body)
}

/// A line without its end.
fn line(stream: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let Some(line) = line.strip_suffix('\n') else {
        bail!("the answer ends within its head");
    };
    Ok(line.trim_end_matches('\r').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Answer> {
        read(&mut BufReader::new(text.as_bytes()))
    }

    #[test]
    fn plain_answer() {
        let answer = parse("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 7e27\r\n\r\n{}\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}\n"));
        assert_eq!(answer.header("x-etcd-cluster-id"), Some("7e27"));
    }

    #[test]
    fn answers_on_one_connection_do_not_mix() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nHTTP/1.1 201 C\r\n\
                    Content-Length: 0\r\n\r\n";
        let mut stream = BufReader::new(text.as_bytes());
        let mut next = || read(&mut stream).map(|answer| (answer.status, answer.body));
        assert_eq!(next().unwrap(), (200, "ab".to_owned()));
        assert_eq!(next().unwrap(), (404, "abcde".to_owned()));
        assert_eq!(next().unwrap(), (201, String::new()));
        next().unwrap_err();
    }

    #[test]
    fn what_is_handed_on_is_the_same() {
        let text =
            "PUT /v2/keys/a HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nvalue=1GET / HTTP/1.1\r\n\r\n";
        let mut stream = BufReader::new(text.as_bytes());
        let request = |method: &str, path: &str, form: &str| Request {
            method: method.into(),
            path: path.into(),
            form: form.into(),
        };
        let mut next = || Request::read(&mut stream).unwrap();
        assert_eq!(next(), Some(request("PUT", "/v2/keys/a", "value=1")));
        assert_eq!(next(), Some(request("GET", "/", "")));
        assert_eq!(next(), None);
        let answer = parse(
            "HTTP/1.1 201 Created\r\nX-Etcd-Index: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        );
        let again = String::from_utf8(rendered(&answer.unwrap())).unwrap();
        assert_eq!(
            again,
            "HTTP/1.1 201 \r\nx-etcd-index: 4\r\ncontent-length: 2\r\n\r\nab"
        );
    }

    #[test]
    fn cut_answers_are_errors() {
        parse("HTTP/1.1 200 OK\r\nA: b").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n").unwrap_err();
        parse("garbage\r\n\r\n").unwrap_err();
    }
}
