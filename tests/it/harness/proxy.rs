//! A way to Redis that a test can make slow, or lead nowhere. Ends with the test.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use entities::redis::Redis;
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinHandle,
};

/// What the way is like.
#[derive(Default)]
struct Way {
    /// Nothing goes through.
    is_blocked: AtomicBool,
    /// Every answer takes so many milliseconds longer.
    delay: AtomicU64,
    /// Answers of connections that follow the log take so many milliseconds longer.
    log_delay: AtomicU64,
}

pub(crate) struct Proxy {
    port: u16,
    way: Arc<Way>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A way to a server on this port.
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let own = listener.local_addr().expect("it has an address").port();
        let way = Arc::new(Way::default());
        let task = tokio::spawn(serve(listener, port, Arc::clone(&way)));
        Self { port: own, way, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn address(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn handle(&self, registry: &mut Registry) -> Redis {
        Redis::new(&self.address().parse().expect("a URL"), registry)
    }

    /// From now on nothing goes through, or everything again.
    pub(crate) fn block(&self, is_blocked: bool) {
        self.way.is_blocked.store(is_blocked, Ordering::SeqCst);
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.way.delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }

    pub(crate) fn delay_log(&self, delay: Duration) {
        self.way.log_delay.store(delay.as_millis() as u64, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, port: u16, way: Arc<Way>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { continue };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let is_log = Arc::new(AtomicBool::new(false));
        tokio::spawn(carry(from_client, to_server, Arc::clone(&way), Arc::clone(&is_log), false));
        tokio::spawn(carry(from_server, to_client, Arc::clone(&way), is_log, true));
    }
}

async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Arc<Way>,
    is_log: Arc<AtomicBool>,
    are_answers: bool,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if !are_answers && bytes[..count].windows(5).any(|word| word == b"XREAD") {
            is_log.store(true, Ordering::SeqCst);
        }
        let delay = if is_log.load(Ordering::SeqCst) { &way.log_delay } else { &way.delay };
        if are_answers {
            tokio::time::sleep(Duration::from_millis(delay.load(Ordering::SeqCst))).await;
        }
        while way.is_blocked.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
