//! The smallest HTTP client that can ask a node how it is: one GET, one connection, a bounded answer.

use anyhow::{Context as _, Result, bail};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A node that does not answer within this is not well.
const TIMEOUT: Duration = Duration::from_secs(2);
/// No answer that is asked for here is longer.
const ANSWER_BYTES_MAX: u64 = 4 * 1024 * 1024;

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

/// Asks for `path` from the network namespace of the calling thread.
pub(crate) fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let ask = || -> Result<Answer> {
        let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        parse(&String::from_utf8_lossy(&bytes))
    };
    ask().with_context(|| format!("ask http://{address}{path}"))
}

fn parse(text: &str) -> Result<Answer> {
    let (head, body) = text
        .split_once("\r\n\r\n")
        .context("the answer ends within its headers")?;
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .and_then(|code| code.parse().ok());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let is_chunked = headers
        .iter()
        .any(|(name, value)| name == "transfer-encoding" && value == "chunked");
    let body = if is_chunked {
        unchunk(body)?
    } else {
        body.to_owned()
    };
    Ok(Answer {
        status: status.context("the answer has no status")?,
        headers,
        body,
    })
}

fn unchunk(mut text: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = text
            .split_once("\r\n")
            .context("the answer ends within a chunk's size")?;
        let size = usize::from_str_radix(size.trim(), 16).with_context(|| format!("chunk size `{size}`"))?;
        if size == 0 {
            return Ok(body);
        }
        let Some((chunk, rest)) = rest.split_at_checked(size) else {
            bail!("the answer ends within a chunk")
        };
        body.push_str(chunk);
        text = rest
            .strip_prefix("\r\n")
            .context("a chunk is longer than its size")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_answer() {
        let answer = parse("HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: 7e27\r\n\r\n{}\n").unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "{}\n"));
        assert_eq!(answer.header("x-etcd-cluster-id"), Some("7e27"));
    }

    #[test]
    fn chunked_answer() {
        let answer = parse(
            "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        )
        .unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (404, "abcde"));
    }

    #[test]
    fn cut_answers_are_errors() {
        parse("HTTP/1.1 200 OK\r\nA: b").unwrap_err();
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc").unwrap_err();
        parse("garbage\r\n\r\n").unwrap_err();
    }
}
