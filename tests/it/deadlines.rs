//! Nobody works for a request that is over: its time is up, or its client has gone away. PostgreSQL is asked
//! what it does. The tables are locked meanwhile and statements have no time-out of their own, so only being
//! cancelled ends them.

use std::time::{Duration, Instant};

use entities::{DatabaseOptions, Role, Store, form, id::FormId};
use prometheus_client::registry::Registry;
use schema::{Access, AccessOptions, auth::token::Subject};
use sea_orm::{ConnectionTrait as _, DatabaseTransaction, DbBackend, Statement, TransactionTrait as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use xp::{App, config::Config};

use crate::harness::{TestApp, db};

/// How long the machine may take, however busy it is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server over a database of its own, and another connection to that.
struct Server {
    address: String,
    bearer: String,
    beside: TestApp,
}

impl Server {
    async fn start(request_timeout: Duration) -> Self {
        let url = db::own_postgres().await;
        let (store, beside) = (db::open(&url).await, TestApp::over(&url).await);
        let access = Access::new(store.clone(), AccessOptions::default());
        access.open().await.expect("a key is made");
        let admin =
            Subject { user: TestApp::account(Role::Admin), role: Role::Admin, epoch: 0, session: None };
        let (token, _) = access.tokens().mint(admin, 600).expect("a token");
        let mut config = Config::default();
        config.http.request_timeout = request_timeout;
        let app = App::new(&config, store, access, Registry::default(), None);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(xp::serve(app, listener, std::future::pending()));
        Self { address, bearer: format!("Bearer {token}"), beside }
    }

    /// Asks for people; the answer is still to be read.
    async fn ask(&self) -> TcpStream {
        let body = r#"{"query":"{ users(first: 1) { nodes { id } } }"}"#;
        let request = format!(
            "POST /graphql HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             authorization: {}\r\ncontent-length: {}\r\n\r\n{body}",
            self.bearer,
            body.len()
        );
        let mut stream = TcpStream::connect(&self.address).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("sent");
        stream
    }

    /// Until it is dropped nobody reads people.
    async fn lock(&self) -> DatabaseTransaction {
        let locked = self.beside.store.connection().begin().await.expect("begun");
        locked.execute_unprepared("lock table users in access exclusive mode").await.expect("locked");
        locked
    }

    /// Waits until so many statements wait for the lock.
    async fn expect_waiting(&self, expected: i64, about: &str) {
        let query = "select count(*) from pg_stat_activity \
                     where datname = current_database() and wait_event_type = 'Lock'";
        let mut seen = -1;
        for _ in 0..PATIENCE.as_millis() / 20 {
            let statement = Statement::from_string(DbBackend::Postgres, query);
            let row = self.beside.store.connection().query_one_raw(statement).await.expect("it answers");
            seen = row.expect("one row").try_get_by_index(0).expect("a number");
            if seen == expected {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{about}: {seen} statements wait");
    }
}

async fn read(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn postgresql_stops_working_for_a_client_that_has_gone_away() {
    let server = Server::start(Duration::from_mins(5)).await;
    let locked = server.lock().await;
    let asked = [server.ask().await, server.ask().await, server.ask().await];
    // Two batches of a kind are under way at once; the third request waits to be served with others.
    server.expect_waiting(2, "as many as may are at work").await;
    drop(asked);
    server.expect_waiting(0, "nobody waits for an answer any more").await;
    locked.rollback().await.expect("unlocked");
    let answer = read(server.ask().await).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""nodes":[{"id""#), "{answer}");
}

#[tokio::test]
async fn postgresql_stops_working_when_the_time_of_a_request_is_up() {
    let server = Server::start(Duration::from_secs(1)).await;
    let locked = server.lock().await;
    let answer = read(server.ask().await).await;
    assert!(answer.starts_with("HTTP/1.1 504") && answer.contains("TIMEOUT"), "{answer}");
    server.expect_waiting(0, "its time is up").await;
    drop(locked);
}

/// What limits the number of requests by how long they wait has to see those who get nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_connection_is_counted_while_they_wait() {
    let url = db::own_postgres().await;
    let beside = TestApp::over(&url).await;
    let options = DatabaseOptions {
        max_connections: 1,
        acquire_timeout: Duration::from_mins(1),
        ..DatabaseOptions::at(&url)
    };
    let store = Store::connect(&options, &mut Registry::default()).await.expect("it is there");
    let waits = store.database().connection_waits().clone();
    let lock = beside.store.connection().begin().await.expect("begun");
    lock.execute_unprepared("lock table forms in access exclusive mode").await.expect("locked");
    let read = || {
        let store = store.clone();
        tokio::spawn(async move { form::by_ids(&store, &[FormId::new()]).await.map(|found| found.len()) })
    };
    let reading: Vec<_> = (0..4).map(|_| read()).collect();
    let until = async |is_so: &dyn Fn() -> bool| {
        let began = Instant::now();
        while !is_so() {
            assert!(began.elapsed() < PATIENCE, "{:?}", waits.sum());
            sleep(Duration::from_millis(5)).await;
        }
    };
    until(&|| waits.sum().waiting == 3).await;
    let before = waits.sum();
    until(&|| waits.sum().waiting_for >= before.waiting_for + Duration::from_millis(300)).await;
    assert!(waits.sum().average_since(&before) >= Duration::from_millis(100), "{:?}", waits.sum());
    // One of them gives up.
    reading[3].abort();
    until(&|| waits.sum().waiting == 2).await;
    lock.rollback().await.expect("it is free again");
    for reading in reading.into_iter().take(3) {
        assert_eq!(reading.await.expect("no panic").expect("it has a connection"), 0);
    }
    let after = waits.sum();
    assert_eq!((after.waiting, after.waiting_for), (0, Duration::ZERO));
    assert!(after.ended >= before.ended + 3, "{before:?}, {after:?}");
}
