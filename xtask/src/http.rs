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
    headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    /// The first header of this name (lower case).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
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

/// Asks for `path` from the network namespace of the calling thread.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    Connection::open(address)?.get(path)
}

fn read(stream: &mut BufReader<impl Read>) -> Result<Answer> {
    let mut head = stream.by_ref().take(HEAD_BYTES_MAX);
    let first = line(&mut head)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status: u16 = status.with_context(|| format!("the answer has no status: `{first}`"))?;
    let mut headers = Vec::new();
    loop {
        let line = line(&mut head)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("header `{line}`"))?;
        headers.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: String::new(),
    };
    let body = match (
        answer.header("transfer-encoding"),
        answer.header("content-length"),
    ) {
        (Some("chunked"), _) => chunks(stream)?,
        (_, Some(length)) => {
            let length = length
                .parse()
                .with_context(|| format!("content-length `{length}`"))?;
            exactly(stream, length)?
        }
        (_, None) => {
            let mut body = Vec::new();
            stream.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
            body
        }
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Ok(answer)
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
    fn cut_answers_are_errors() {
        parse("HTTP/1.1 200 OK\r\nA: b").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n").unwrap_err();
        parse("garbage\r\n\r\n").unwrap_err();
    }
}
