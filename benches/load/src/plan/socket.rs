//! A client of `graphql-transport-ws` that does as little as possible: it may be one of many thousands, so it
//! keeps no buffer while nothing comes. It answers pings and gives the texts. Not here: what is subscribed
//! to.

use std::io;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

const HANDSHAKE: &str = "GET /graphql HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    sec-websocket-protocol: graphql-transport-ws\r\n\r\n";

/// In the second byte of a frame: that it is masked, and that two bytes with its length follow.
const MASKED: u8 = 0x80;
const TWO_BYTES: u8 = 0x7e;

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// An open WebSocket.
pub(super) struct Socket {
    stream: TcpStream,
    /// What was received of frames that are not complete.
    received: Vec<u8>,
}

impl Socket {
    /// Opens it over a connection, says who it is, and waits until that is accepted.
    pub(super) async fn open(stream: TcpStream, token: Option<&str>) -> Result<Self> {
        stream.set_nodelay(true)?;
        let mut socket = Self { stream, received: Vec::new() };
        socket.stream.write_all(HANDSHAKE.as_bytes()).await?;
        let head_end = loop {
            if let Some(end) = memmem::find(&socket.received, b"\r\n\r\n") {
                break end + 4;
            }
            socket.receive().await?;
        };
        ensure!(
            socket.received.starts_with(b"HTTP/1.1 101 "),
            "no WebSocket: {}",
            String::from_utf8_lossy(&socket.received)
        );
        socket.received.drain(..head_end);
        let payload = token.map(|token| json!({ "authorization": format!("Bearer {token}") }));
        socket
            .send(TEXT, json!({ "type": "connection_init", "payload": payload }).to_string().as_bytes())
            .await?;
        let answer = socket.text().await?;
        ensure!(answer.contains("connection_ack"), "the socket was not accepted: {answer}");
        Ok(socket)
    }

    /// Begins a subscription.
    pub(super) async fn subscribe(&mut self, query: &str, variables: &Value) -> Result<()> {
        let payload = json!({ "query": query, "variables": variables });
        let message = json!({ "id": "1", "type": "subscribe", "payload": payload });
        self.send(TEXT, message.to_string().as_bytes()).await
    }

    /// The next text.
    pub(super) async fn text(&mut self) -> Result<String> {
        loop {
            let Some((kind, payload)) = self.frame() else {
                self.receive().await?;
                continue;
            };
            match kind {
                TEXT => return String::from_utf8(payload).context("the text of a frame"),
                PING => self.send(PONG, &payload).await?,
                CLOSE => bail!("closed: {}", String::from_utf8_lossy(payload.get(2..).unwrap_or_default())),
                _ => {}
            }
        }
    }

    /// Answers pings until the other end closes.
    pub(super) async fn stay(&mut self) -> anyhow::Error {
        loop {
            if let Err(error) = self.text().await {
                return error;
            }
        }
    }

    /// Takes the first frame from what was received, if it is complete.
    fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, rest @ ..] = self.received.as_slice() else { return None };
        let (length, head) = match second & 127 {
            126 => (usize::from(u16::from_be_bytes(*rest.first_chunk()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(*rest.first_chunk()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let payload = self.received.get(head..head + length)?.to_vec();
        let kind = first & 15;
        self.received.drain(..head + length);
        if self.received.is_empty() {
            self.received = Vec::new();
        }
        Some((kind, payload))
    }

    async fn receive(&mut self) -> Result<()> {
        loop {
            self.stream.readable().await?;
            if self.take()? {
                return Ok(());
            }
        }
    }

    /// Whether something was there. The space is the stack's and not that of the task, which waits most of the time.
    fn take(&mut self) -> Result<bool> {
        let mut space = [0; 4096];
        match self.stream.try_read(&mut space) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(count) => {
                self.received.extend_from_slice(&space[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// A client's frames are masked; by zeros, which change nothing.
    async fn send(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let mut frame = vec![128 | kind];
        match u16::try_from(payload.len())? {
            short @ 0..126 => frame.push(MASKED | short as u8),
            length => {
                frame.push(MASKED | TWO_BYTES);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(payload);
        self.stream.write_all(&frame).await?;
        Ok(())
    }
}
