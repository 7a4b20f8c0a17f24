//! A middle box between a server and PostgreSQL, as firewalls and load balancers are: it can forget the
//! connections that it knows, without a word to either end, while new ones work. Ends with the test. Not
//! here: the way to Redis (`proxy`).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UnixStream},
};

/// What becomes of what is sent over a forgotten connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Forgotten {
    /// It is taken, and goes nowhere.
    Swallowed,
    /// It is not even taken: it piles up with who sends it.
    Left,
}

#[derive(Default)]
struct State {
    /// Connections up to this number are forgotten.
    forgotten: AtomicU64,
    /// And what they send is swallowed.
    swallowed: AtomicU64,
    opened: AtomicU64,
    /// Nothing is let through, and who comes is turned away at once.
    refuses: AtomicBool,
    /// What happens at the next COMMIT: one of the numbers below.
    at_commit: AtomicU8,
}

/// COMMIT is passed on; its answer is not, and its connection ends.
const SWALLOW_ITS_ANSWER: u8 = 1;
/// COMMIT and its answer are passed on; afterwards everything is refused.
const REFUSE_AFTER_IT: u8 = 2;
/// COMMIT is taken and goes nowhere, as all that comes after it over its connection.
const LOSE_IT: u8 = 3;

pub(crate) struct MiddleBox {
    /// The database, by this way.
    pub(crate) url: String,
    state: Arc<State>,
    _end: tokio::sync::oneshot::Sender<()>,
}

impl MiddleBox {
    /// A way to the database of this URL. It has a thread of its own, for tests that wait for processes.
    pub(crate) fn to(url: &str) -> Self {
        let target = Target::of(url);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let (state, (end, ended)) = (Arc::new(State::default()), tokio::sync::oneshot::channel());
        let kept = Arc::clone(&state);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let serving = async {
                let listener = TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = serve(listener, target, kept) => {}
                    _ = ended => {}
                }
            };
            runtime.expect("a runtime").block_on(serving);
        });
        let (head, _) = url.split_once('?').unwrap_or((url, ""));
        let (account, rest) = head.rsplit_once('@').expect("a URL with an account");
        let (_, name) = rest.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{account}@127.0.0.1:{port}/{name}"), state, _end: end }
    }

    /// From now on the connections that there are lead nowhere; new ones work.
    pub(crate) fn forget(&self, how: Forgotten) {
        let opened = self.state.opened.load(Ordering::SeqCst);
        if matches!(how, Forgotten::Swallowed) {
            self.state.swallowed.store(opened, Ordering::SeqCst);
        }
        self.state.forgotten.store(opened, Ordering::SeqCst);
    }

    /// From now on also new ones lead nowhere.
    pub(crate) fn vanish(&self) {
        self.state.swallowed.store(u64::MAX, Ordering::SeqCst);
        self.state.forgotten.store(u64::MAX, Ordering::SeqCst);
    }

    /// Who comes is turned away, and all connections that there are end; or no longer.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.state.refuses.store(refuses, Ordering::SeqCst);
    }

    /// Everything goes through again, over new connections.
    pub(crate) fn restore(&self) {
        self.forget(Forgotten::Swallowed);
        self.refuse(false);
    }

    /// The next COMMIT is carried out, and nobody hears of it.
    pub(crate) fn swallow_the_answer_to_commit(&self) {
        self.state.at_commit.store(SWALLOW_ITS_ANSWER, Ordering::SeqCst);
    }

    /// The next COMMIT is answered; then everything is refused.
    pub(crate) fn refuse_after_commit(&self) {
        self.state.at_commit.store(REFUSE_AFTER_IT, Ordering::SeqCst);
    }

    /// The next COMMIT is lost with its connection, and neither end hears of that.
    pub(crate) fn lose_commit(&self) {
        self.state.at_commit.store(LOSE_IT, Ordering::SeqCst);
    }

    /// Connections so far.
    pub(crate) fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
enum Target {
    Socket(String),
    Address(String),
}

impl Target {
    fn of(url: &str) -> Self {
        let (head, query) = url.split_once('?').unwrap_or((url, ""));
        if let Some(directory) = query.split('&').find_map(|pair| pair.strip_prefix("host=/")) {
            return Self::Socket(format!("/{directory}/.s.PGSQL.5432"));
        }
        let (_, rest) = head.rsplit_once('@').expect("a URL with an account");
        let (host, _) = rest.rsplit_once('/').expect("a URL with a database");
        Self::Address(if host.contains(':') { host.to_owned() } else { format!("{host}:5432") })
    }
}

async fn serve(listener: TcpListener, target: Target, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        if state.refuses.load(Ordering::SeqCst) {
            continue;
        }
        let number = state.opened.fetch_add(1, Ordering::SeqCst) + 1;
        let (target, state) = (target.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            match target {
                Target::Socket(path) => {
                    between(client, UnixStream::connect(path).await, number, &state).await;
                }
                Target::Address(address) => {
                    between(client, TcpStream::connect(address).await, number, &state).await;
                }
            }
        });
    }
}

async fn between<S: AsyncRead + AsyncWrite>(
    client: TcpStream,
    server: io::Result<S>,
    number: u64,
    state: &State,
) {
    let Ok(server) = server else { return };
    let ((from_client, to_client), (from_server, to_server)) =
        (client.into_split(), tokio::io::split(server));
    // What happens at the COMMIT that was sent over this connection.
    let at_commit = AtomicU8::new(0);
    let there = carry((from_client, to_server), (number, true), state, &at_commit);
    let back = carry((from_server, to_client), (number, false), state, &at_commit);
    // The end of one side is the end of both, unless they were forgotten: then neither hears of it.
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}

async fn carry(
    (mut from, mut to): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    (number, is_there): (u64, bool),
    state: &State,
    at_commit: &AtomicU8,
) {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let is_forgotten = || number <= state.forgotten.load(Ordering::SeqCst);
        while is_forgotten() && number > state.swallowed.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let reading = tokio::time::timeout(Duration::from_millis(20), from.read(&mut bytes)).await;
        match reading {
            _ if state.refuses.load(Ordering::SeqCst) => return,
            Ok(Ok(count @ 1..)) if !is_forgotten() => {
                if is_there && bytes[..count].windows(6).any(|word| word == b"COMMIT") {
                    at_commit.store(state.at_commit.swap(0, Ordering::SeqCst), Ordering::SeqCst);
                }
                if is_there && at_commit.load(Ordering::SeqCst) == LOSE_IT {
                    std::future::pending::<()>().await;
                }
                if !is_there && at_commit.load(Ordering::SeqCst) == SWALLOW_ITS_ANSWER {
                    return;
                }
                if to.write_all(&bytes[..count]).await.is_err() {
                    return;
                }
                if !is_there && at_commit.load(Ordering::SeqCst) == REFUSE_AFTER_IT {
                    state.refuses.store(true, Ordering::SeqCst);
                    return;
                }
            }
            Err(_) | Ok(Ok(1..)) => {}
            Ok(_) if is_forgotten() => std::future::pending().await,
            Ok(_) => return,
        }
    }
}
