//! `xp serve` begins before its database does: it waits, says what for, and gives up with a clear message. Not here: a
//! database that goes away later (`failures`).

use std::{
    io::{ErrorKind, Read as _},
    net::{TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::harness::{
    MiddleBox, db,
    process::{self, Server},
};

/// A way to a database of one's own.
fn way() -> MiddleBox {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    MiddleBox::to(&runtime.block_on(db::own_postgres()))
}

#[test]
fn the_server_waits_for_its_database() {
    let way = way();
    way.refuse(true);
    let server = thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(2));
            way.restore();
        });
        Server::start(&way.url, &[("XP_DATABASE_START_WAIT", "2m")])
    });
    let log = server.log();
    assert_eq!(log.matches("waiting for the database").count(), 1, "{log}");
    assert!(log.contains("the database is there") && !log.contains("the database cannot be used"), "{log}");
    let ready = || process::send(&server.address, "/readyz", &[], "").expect("it is there");
    let is_ready = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(100));
        ready().0 == 200
    });
    assert!(is_ready, "{:?}", ready());
}

/// Who comes too early is refused and can ask another server, rather than wait.
#[test]
fn nobody_is_let_in_while_the_database_is_waited_for() {
    let way = way();
    way.refuse(true);
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("free").port();
    let (serve, says) = Waiting::start(&way.url, port);
    says("waiting for the");
    let connect = || TcpStream::connect(("127.0.0.1", port));
    assert!(connect().is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
    way.restore();
    says("serving");
    assert!(connect().is_ok());
    drop(serve);
}

#[test]
fn a_database_that_does_not_come_ends_the_start_with_a_clear_message() {
    let way = way();
    way.refuse(true);
    let serve = |wait: &str, url: &str| {
        let mut serve = process::xp(url);
        let output = serve.arg("serve").env("PORT", "0").env("XP_DATABASE_START_WAIT", wait).output();
        let output = output.expect("it can be started");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = serve("1s", &way.url);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("waiting for the database") && said.contains("database.start_wait"), "{said}");
    let (code, said) = serve("0s", &way.url);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("waiting") && said.contains("the database cannot be used\n"), "{said}");
    // What waiting does not mend.
    way.restore();
    let (head, _) = way.url.rsplit_once('/').expect("a URL with a database");
    let (code, said) = serve("2m", &format!("{head}/nowhere"));
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("waiting") && said.contains("the database cannot be used\n"), "{said}");
}

#[test]
fn sigterm_ends_the_waiting() {
    let way = way();
    way.refuse(true);
    let (mut serve, says) = Waiting::start(&way.url, 0);
    says("waiting for the");
    let sent = std::process::Command::new("kill").args(["-TERM", &serve.0.id().to_string()]).status();
    assert!(sent.expect("there is a `kill`").success());
    let ended = (0..500).find_map(|_| {
        thread::sleep(Duration::from_millis(20));
        serve.0.try_wait().expect("its state")
    });
    assert!(ended.is_some_and(|status| status.success()), "{ended:?}");
}

/// A process that ends with its test.
struct Waiting(Child);

impl Waiting {
    /// `xp serve`, which waits for its database for minutes, and what waits until it has said something.
    fn start(url: &str, port: u16) -> (Self, impl Fn(&str)) {
        let mut serve = process::xp(url);
        serve.arg("serve").env("PORT", port.to_string()).env("XP_DATABASE_START_WAIT", "10m");
        let mut serve = Self(serve.stderr(Stdio::piped()).spawn().expect("it can be started"));
        let mut stderr = serve.0.stderr.take().expect("a pipe");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let (mut text, mut bytes) = (String::new(), [0; 4096]);
            while let Ok(count @ 1..) = stderr.read(&mut bytes) {
                text.push_str(&String::from_utf8_lossy(&bytes[..count]));
                let _ = tell.send(text.clone());
            }
        });
        let says = move |what: &str| {
            while !told.recv_timeout(Duration::from_mins(1)).expect("it says something").contains(what) {}
        };
        (serve, says)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
