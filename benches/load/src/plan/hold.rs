//! The process that holds connections to one server open, since a process may have only so many files: told
//! on standard input which to open (`http 100`, `idle 100`, `subscribed 100`), it says on standard output
//! when they are. It ends with its standard input, and closes them all. Not here: what they cost
//! (`connections`).

use std::{
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    task::JoinSet,
};

use super::socket::Socket;
use crate::overload::connect;

/// Connections from one address. The system has 28,000 ports to choose from, and takes even ones first: once these
/// are used up it looks at all of them before each further connection, which takes a millisecond.
pub(super) const PER_ADDRESS: u32 = 10_000;
/// Connections that are being opened at once.
const AT_ONCE: u32 = 64;
/// What comes rarely, of the caller's own account.
const SUBSCRIPTION: &str = "subscription { sessionEnded { id } }";

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Has asked once, and is kept alive.
    Http,
    /// A WebSocket on which nothing is asked.
    Idle,
    /// A WebSocket with a subscription.
    Subscribed,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Http, Self::Idle, Self::Subscribed];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Idle => "idle",
            Self::Subscribed => "subscribed",
        }
    }
}

/// Opened connections.
enum Held {
    Http(TcpStream),
    Socket(Socket),
}

/// Holds what it is told to.
pub(super) async fn run(address: SocketAddr, from: u32, token: &str) -> Result<()> {
    let mut commands = BufReader::new(tokio::io::stdin()).lines();
    let lost = Arc::new(AtomicU64::new(0));
    let (mut silent, mut sockets, mut opened) = (Vec::new(), JoinSet::new(), 0);
    while let Some(command) = commands.next_line().await? {
        if command == "lost" {
            let closed = silent.iter().filter(|stream| is_closed(stream)).count() as u64;
            say(lost.load(Ordering::Relaxed) + closed)?;
            continue;
        }
        let (kind, count) = command.split_once(' ').context("a command is a kind and a number")?;
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind);
        let (kind, count): (_, u32) = (kind.context("an unknown kind")?, count.parse()?);
        let mut begun = 0;
        while begun < count {
            let mut opening = JoinSet::new();
            for _ in 0..AT_ONCE.min(count - begun) {
                let token = token.to_owned();
                let host = from + opened / PER_ADDRESS;
                (begun, opened) = (begun + 1, opened + 1);
                opening.spawn(async move { open(address, host, kind, &token).await });
            }
            while let Some(open) = opening.join_next().await {
                match open?? {
                    Held::Http(stream) => silent.push(stream),
                    Held::Socket(mut socket) => {
                        let lost = Arc::clone(&lost);
                        sockets.spawn(async move {
                            socket.stay().await;
                            lost.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                }
            }
        }
        say(u64::from(count))?;
    }
    Ok(())
}

fn say(number: u64) -> Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "{number}")?;
    Ok(output.flush()?)
}

fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Ok(0))
}

async fn open(address: SocketAddr, host: u32, kind: Kind, token: &str) -> Result<Held> {
    let mut stream = connect(address, host).await?;
    if kind == Kind::Http {
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await?;
        let mut answer = [0; 1024];
        let count = stream.read(&mut answer).await?;
        ensure!(answer[..count].starts_with(b"HTTP/1.1 200 "), "/livez does not answer");
        return Ok(Held::Http(stream));
    }
    let mut socket = Socket::open(stream, Some(token)).await?;
    if kind == Kind::Subscribed {
        socket.subscribe(SUBSCRIPTION, &json!({})).await?;
    }
    Ok(Held::Socket(socket))
}

/// Says what another process of this kind answered.
pub(super) fn number(line: Option<String>) -> Result<u64> {
    let Some(line) = line else { bail!("the process that holds connections has ended") };
    line.parse().with_context(|| format!("it said {line}"))
}
