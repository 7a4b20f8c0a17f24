//! A keep-alive HTTP/1.1 client that does as little as possible, because it shares the processor with the servers.
//! One connection, one request at a time, answers with a `content-length`. What a request says is in `workload`.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// An open connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, valid until the connection's next request.
pub(crate) struct Answer<'c> {
    pub(crate) status: u16,
    pub(crate) body: &'c [u8],
}

impl Answer<'_> {
    /// Whether the request was answered with data and without errors. The body is searched, not parsed.
    pub(crate) fn is_good(&self) -> bool {
        self.status == 200
            && memmem::find(self.body, br#""errors":"#).is_none()
            && memmem::find(&self.body[..self.body.len().min(256)], br#""data":"#).is_some()
    }
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        Self::over(stream)
    }

    pub(crate) fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Whether the server has closed it, while nothing was asked.
    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.stream.try_read(&mut [0]), Ok(0))
    }

    /// Sends a whole request (head and body) and reads the whole answer.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head_end = loop {
            // The head is in the first packet but for the rarest case, so searching from the start is cheap.
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            self.receive().await?;
        };
        let head = Head::parse(&self.buffer[..head_end])?;
        let body_start = head_end + 4;
        let end = body_start + head.content_length;
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            self.receive().await?;
        }
        Ok(Answer { status: head.status, body: &self.buffer[body_start..end] })
    }

    async fn receive(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the server closed the connection");
        Ok(())
    }
}

/// What must be known of an answer's head.
struct Head {
    status: u16,
    content_length: usize,
}

impl Head {
    fn parse(head: &[u8]) -> Result<Self> {
        let head = std::str::from_utf8(head).context("the head of the answer is not text")?;
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1.1 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .context("no HTTP/1.1 status line")?;
        for line in lines {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                let content_length = value.trim().parse().context("content-length is no number")?;
                return Ok(Self { status, content_length });
            }
        }
        bail!("status {status} without a content-length; this client reads no chunked answers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_gives_status_and_length_whatever_the_case() {
        let head = Head::parse(b"HTTP/1.1 200 OK\r\nvary: x\r\nContent-Length: 42").unwrap();
        assert_eq!((head.status, head.content_length), (200, 42));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked").is_err());
    }

    #[test]
    fn an_answer_with_errors_is_not_good() {
        let good = |status, body: &str| Answer { status, body: body.as_bytes() }.is_good();
        assert!(good(200, r#"{"data":{"user":null}}"#));
        assert!(!good(200, r#"{"data":null,"errors":[{"message":"no"}]}"#));
        assert!(!good(503, r#"{"data":{}}"#));
    }
}
