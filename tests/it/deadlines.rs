//! Nobody works for a request that is over: its time is up, or its client has gone away. PostgreSQL is asked what it does.
//! The tables are locked meanwhile and statements have no time-out of their own, so only being cancelled ends them.

use std::time::Duration;

use entities::Role;
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
