//! Tests of compression.

use std::{
    io::Read as _,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Wake, Waker},
    time::Duration,
};

use http_body_util::BodyExt as _;
use schema::Chunks;

use super::*;

fn chosen(accept: &str) -> &'static str {
    let headers =
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_str(accept).expect("a header"))]);
    Accepted::of(&headers).best(Coding::SMALLEST).name()
}

#[test]
fn the_caller_chooses_the_coding() {
    for (accept, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("zstd, br", "br"),
        ("zstd, gzip", "zstd"),
        ("br;q=0.9, zstd", "zstd"),
        ("br;q=0.1, gzip;q=0.2", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "br"),
        ("br;q=0, *", "zstd"),
        ("*;q=0", "identity"),
        ("gzip;q=0", "identity"),
        ("identity, gzip", "gzip"),
        ("identity, gzip;q=0.5", "identity"),
        ("identity;q=0.5, gzip;q=0.6", "gzip"),
        ("deflate", "identity"),
        ("br;q=2, zstd;q=x, gzip;q=0.001", "gzip"),
        ("", "identity"),
    ] {
        assert_eq!(chosen(accept), coding, "{accept}");
    }
    assert_eq!(Accepted::of(&HeaderMap::new()).best(Coding::CHEAPEST), Coding::Identity);
}

#[test]
fn the_caller_takes_what_is_not_compressed_unless_they_say_so() {
    for (accept, takes) in [
        ("br", true),
        ("br, *;q=0", false),
        ("br, identity;q=0", false),
        ("br, IDENTITY;q=0.1, *;q=0", true),
        ("", true),
    ] {
        let value = HeaderValue::from_str(accept).expect("a header");
        assert_eq!(
            Accepted::of(&HeaderMap::from_iter([(header::ACCEPT_ENCODING, value)])).takes_identity(),
            takes,
            "{accept}"
        );
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn inflated(coding: Coding, bytes: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    let read = match coding {
        Coding::Identity => return bytes.to_vec(),
        Coding::Gzip => flate2::read::GzDecoder::new(bytes).read_to_end(&mut whole),
        Coding::Zstd => zstd::stream::read::Decoder::new(bytes).expect("zstd").read_to_end(&mut whole),
        Coding::Brotli => brotli::Decompressor::new(bytes, 4 << 10).read_to_end(&mut whole),
    };
    read.expect("it is whole");
    whole
}

fn pieces(whole: &[u8], coding: Coding, turns: &Arc<Turns>) -> Pieces {
    Pieces::of(Chunks::from(whole.to_vec()).into(), coding, turns).expect("an encoder")
}

/// While others compress on the threads that are for it, a long body waits, and a short one does not.
#[tokio::test]
async fn a_long_body_waits_for_its_turn() {
    let turns = Arc::new(Turns::new(1));
    let mut waiting = None;
    let Poll::Ready(others) = turns.poll_take(&mut waiting, &mut Context::from_waker(Waker::noop())) else {
        panic!("it is free");
    };
    let text = vec![b'x'; PIECE + 1];
    assert!(pieces(&text[..PIECE], Coding::Gzip, &turns).collect().await.is_ok());
    assert!(pieces(&text, Coding::Identity, &turns).collect().await.is_ok());
    let long = pieces(&text, Coding::Gzip, &turns).collect();
    let mut long = std::pin::pin!(long);
    // More often than it has pieces.
    for _ in 0..10 {
        assert!(futures_util::poll!(long.as_mut()).is_pending());
    }
    drop(others);
    let whole = long.await.expect("no error").to_bytes();
    assert!(inflated(Coding::Gzip, &whole) == text);
    assert_eq!(turns.permits.available_permits(), 1, "it is given back");
}

/// A body that is woken and not polled, as HTTP/2 does while its window is closed, keeps no turn from others.
#[tokio::test]
async fn a_body_that_is_not_polled_holds_no_turn() {
    let turns = Arc::new(Turns::new(1));
    let text = vec![b'x'; 3 * PIECE];
    let mut idle: Vec<_> = (0..3).map(|_| pieces(&text, Coding::Gzip, &turns)).collect();
    let mut waiting = None;
    let Poll::Ready(others) = turns.poll_take(&mut waiting, &mut Context::from_waker(Waker::noop())) else {
        panic!("it is free");
    };
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    for body in &mut idle {
        assert!(Pin::new(body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
    }
    let mut last = Box::pin(pieces(&text, Coding::Gzip, &turns).collect());
    assert!(futures_util::poll!(last.as_mut()).is_pending());
    drop(others);
    assert_eq!(woken.0.load(Ordering::Relaxed), idle.len(), "all are woken");
    let whole = tokio::time::timeout(Duration::from_secs(10), last).await.expect("its turn comes");
    assert!(inflated(Coding::Gzip, &whole.expect("no error").to_bytes()) == text);
    for body in idle {
        assert!(inflated(Coding::Gzip, &body.collect().await.expect("no error").to_bytes()) == text);
    }
}

/// No poll works on more than a piece, not even where nothing comes out of it, and each is followed by
/// others' turn.
#[test]
fn a_long_body_takes_many_turns() {
    let zeros = vec![0; 100 * PIECE];
    let mixed: Vec<u8> = (0..5 * PIECE + 7).map(|at| (at * at % 251) as u8).collect();
    for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd, Coding::Brotli] {
        for whole in [&zeros, &mixed] {
            let woken = Arc::new(Woken::default());
            let waker = Waker::from(Arc::clone(&woken));
            let mut cx = Context::from_waker(&waker);
            let mut pieces = pieces(whole, coding, &Arc::new(Turns::new(1)));
            let (mut out, mut waited) = (Vec::new(), 0);
            loop {
                let before = pieces.rest.len();
                let polled = Pin::new(&mut pieces).poll_frame(&mut cx);
                assert!(before - pieces.rest.len() <= PIECE, "{coding:?}");
                match polled {
                    Poll::Pending => waited += 1,
                    Poll::Ready(Some(frame)) => {
                        out.extend_from_slice(&frame.expect("no error").into_data().expect("data"));
                    }
                    Poll::Ready(None) => break,
                }
            }
            assert_eq!(woken.0.load(Ordering::Relaxed), waited, "who waits is woken");
            assert_eq!(waited, whole.len().div_ceil(PIECE) - 1, "{coding:?}");
            assert!(inflated(coding, &out) == *whole, "{coding:?}");
            assert!(coding == Coding::Identity || out.len() < whole.len(), "{coding:?}");
        }
    }
}
