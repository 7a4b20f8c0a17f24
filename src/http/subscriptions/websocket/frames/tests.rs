//! Frames as clients send them, well-made and not.

use tokio::io::{DuplexStream, duplex};

use super::*;
use crate::http::{memory::MemoryPool, shares::Owner};

const WITHIN: Duration = Duration::from_millis(300);
const PACE: Pace = Pace { window: Duration::from_secs(10), per_second: 8 << 10 };
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

/// A masked frame; `first` is its first byte.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x12, 0x34, 0x56, 0x78];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 0x7e);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 0x7f);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

fn socket(message: usize, memory: usize) -> (Socket<DuplexStream>, DuplexStream) {
    let memory = MemoryPool::new(memory, 100);
    let (server, client) = duplex(1 << 20);
    let limits = MessageLimits { message, within: WITHIN, pace: PACE };
    (Socket::new(server, limits, move || memory.reserve(Owner::default())), client)
}

/// What comes of these bytes, sent in pieces of so many.
async fn received(bytes: &[u8], piece: usize) -> Vec<Result<String, u16>> {
    let (mut socket, mut client) = socket(1_000, 1 << 20);
    let bytes = bytes.to_vec();
    let sending = async {
        for piece in bytes.chunks(piece) {
            client.write_all(piece).await.expect("there is room");
            tokio::task::yield_now().await;
        }
        client.shutdown().await.expect("open");
    };
    let receiving = async {
        let mut all = Vec::new();
        loop {
            match socket.receive().await {
                Ok(ClientFrame::Text(text)) => all.push(Ok(text.text)),
                Ok(ClientFrame::Ping(payload)) => all.push(Ok(format!("ping {}", payload.len()))),
                Ok(ClientFrame::Pong) => all.push(Ok("pong".into())),
                Ok(ClientFrame::Close(code)) => all.push(Ok(format!("close {code}"))),
                Err(SocketError::Refused(close)) => {
                    all.push(Err(close.code));
                    return all;
                }
                Err(SocketError::Gone) => return all,
            }
        }
    };
    tokio::join!(sending, receiving).1
}

#[tokio::test]
async fn messages_come_whole_however_they_are_cut() {
    let bytes = [
        frame(FINAL | TEXT, "Xin chào".as_bytes()),
        frame(FINAL | TEXT, b""),
        frame(TEXT, &"Xin chào".as_bytes()[..8]),
        frame(FINAL | PING, b"abc"),
        frame(0, b""),
        frame(FINAL | PONG, b""),
        frame(FINAL, &"Xin chào".as_bytes()[8..]),
        frame(FINAL | TEXT, &[b'x'; 1_000]),
        frame(FINAL | CLOSE, &1001_u16.to_be_bytes()),
    ]
    .concat();
    let wanted = ["Xin chào", "", "ping 3", "pong", "Xin chào", &"x".repeat(1_000), "close 1001"];
    let wanted: Vec<_> = wanted.into_iter().map(|text| Ok(text.to_owned())).collect();
    for piece in [1, 2, 3, 7, 64, 5_000] {
        assert_eq!(received(&bytes, piece).await, wanted, "in pieces of {piece}");
    }
}

#[tokio::test]
async fn invalid_frames_have_their_close_codes() {
    let unmasked = vec![FINAL | TEXT, 1, b'x'];
    let announced =
        [vec![FINAL | TEXT, 0x80 | 0x7f], (u64::MAX >> 1).to_be_bytes().to_vec(), vec![0; 4]].concat();
    for (what, bytes, code) in [
        ("not masked", unmasked, 1002),
        ("a reserved bit", frame(FINAL | 0x40 | TEXT, b"x"), 1002),
        ("a reserved opcode", frame(FINAL | 3, b"x"), 1002),
        ("a reserved control opcode", frame(FINAL | 0xb, b"x"), 1002),
        ("a continuation of nothing", frame(FINAL, b"x"), 1002),
        ("a message within a message", [frame(TEXT, b"x"), frame(FINAL | TEXT, b"y")].concat(), 1002),
        ("a ping in fragments", frame(PING, b"x"), 1002),
        ("a long ping", frame(FINAL | PING, &[0; 126]), 1002),
        ("half a close code", frame(FINAL | CLOSE, &[3]), 1002),
        ("a close code that may not be sent", frame(FINAL | CLOSE, &1005_u16.to_be_bytes()), 1002),
        ("a close code of nobody", frame(FINAL | CLOSE, &999_u16.to_be_bytes()), 1002),
        ("a close reason that is not UTF-8", frame(FINAL | CLOSE, &[0x03, 0xe8, 0xff]), 1007),
        ("not UTF-8", frame(FINAL | TEXT, &[0xff]), 1007),
        ("half a character", frame(FINAL | TEXT, &[0xc3]), 1007),
        ("binary", frame(FINAL | BINARY, b"x"), 4400),
        ("too large", frame(FINAL | TEXT, &[b'x'; 1_001]), 1009),
        ("announced as too large", announced, 1009),
        ("too large in fragments", [frame(TEXT, &[b'x'; 600]), frame(FINAL, &[b'x'; 401])].concat(), 1009),
    ] {
        assert_eq!(received(&bytes, 5_000).await, [Err(code)], "{what}");
        let in_pieces = received(&bytes, 1).await;
        assert_eq!(in_pieces, [Err(code)], "{what}, byte by byte");
    }
}

#[tokio::test]
async fn an_endless_message_is_refused_despite_control_frames() {
    for begun in
        [frame(TEXT, b"x"), frame(FINAL | TEXT, b"xyz")[..7].to_vec(), vec![FINAL | TEXT], vec![FINAL | PING]]
    {
        let (mut socket, mut client) = socket(1_000, 1 << 20);
        client.write_all(&begun).await.expect("room");
        let is_fragment = begun.len() > 8 || begun[0] == TEXT;
        let started = Instant::now();
        let meanwhile = async {
            loop {
                tokio::time::sleep(WITHIN / 10).await;
                if is_fragment {
                    client.write_all(&frame(0, b"")).await.expect("room");
                    client.write_all(&frame(FINAL | PING, b"")).await.expect("room");
                }
            }
        };
        let refused = async {
            loop {
                match socket.receive().await {
                    Ok(ClientFrame::Ping(_)) => {}
                    other => return other.err(),
                }
            }
        };
        let refused = tokio::select! {
            refused = refused => refused,
            () = meanwhile => None,
        };
        assert_eq!(refused, Some(SocketError::Refused(close::MESSAGE_TIMEOUT)), "{begun:?}");
        assert!(started.elapsed() >= WITHIN);
    }
}

#[tokio::test]
async fn who_is_silent_between_messages_has_all_the_time() {
    let (mut socket, mut client) = socket(1_000, 1 << 20);
    for _ in 0..2 {
        let waited = timeout(WITHIN * 2, socket.receive()).await;
        assert!(waited.is_err(), "nothing comes, and nothing is wrong");
        client.write_all(&frame(FINAL | TEXT, b"x")).await.expect("room");
        assert!(matches!(socket.receive().await, Ok(ClientFrame::Text(text)) if text.text == "x"));
    }
}

#[tokio::test]
async fn memory_grows_with_what_has_come_and_is_given_back() {
    let (mut socket, mut client) = socket(100_000, 4_096);
    let announced = &frame(FINAL | TEXT, &vec![b'x'; 50_000])[..1_000];
    client.write_all(announced).await.expect("room");
    assert!(timeout(WITHIN / 3, socket.receive()).await.is_err(), "little has come, much was announced");
    let held = socket.message.as_ref().expect("begun").bytes.capacity();
    assert!(held < 2_048, "{held}");
    client.write_all(&[b'x'; 8_000]).await.expect("room");
    assert!(matches!(socket.receive().await, Err(SocketError::Refused(close::NO_MEMORY))));

    let (mut socket, mut client) = self::socket(100_000, 4_096);
    for _ in 0..10 {
        client.write_all(&frame(FINAL | TEXT, &[b'x'; 3_000])).await.expect("room");
        assert!(matches!(socket.receive().await, Ok(ClientFrame::Text(text)) if text.text.len() == 3_000));
    }
}

#[tokio::test]
async fn the_reason_arrives_also_while_the_client_is_still_sending() {
    let (mut socket, mut client) = socket(1_000, 1 << 20);
    let sending = async {
        let message = frame(FINAL | TEXT, &vec![b'x'; 3 << 20]);
        let (head, rest) = message.split_at(5_000);
        client.write_all(head).await.expect("room");
        let mut close = [0; 2];
        client.read_exact(&mut close).await.expect("a frame");
        let mut payload = vec![0; usize::from(close[1])];
        client.read_exact(&mut payload).await.expect("the reason");
        client.write_all(rest).await.expect("it is read");
        client.write_all(&frame(FINAL | CLOSE, &payload)).await.expect("it is read");
        (close[0], u16::from_be_bytes([payload[0], payload[1]]))
    };
    let refusing = async {
        let refused = socket.receive().await.err();
        let started = Instant::now();
        socket.close(close::TOO_LARGE, WITHIN * 20).await;
        (refused, started.elapsed() < WITHIN * 20)
    };
    let (client, server) = tokio::join!(sending, refusing);
    assert_eq!(client, (FINAL | CLOSE, 1009));
    assert_eq!(
        server,
        (Some(SocketError::Refused(close::TOO_LARGE)), true),
        "it ends with the client's answer"
    );
}

#[tokio::test]
async fn what_was_not_sent_yet_is_sent_before_what_follows() {
    let (server, mut client) = duplex(64);
    let memory = MemoryPool::new(1 << 20, 100);
    let limits = MessageLimits { message: 10, within: WITHIN, pace: PACE };
    let mut socket = Socket::new(server, limits, move || memory.reserve(Owner::default()));
    for length in [10_usize, 20_000] {
        let text = vec![b'x'; length];
        let cut_off = timeout(WITHIN / 10, socket.send_text([text.into()])).await;
        assert_eq!(cut_off.is_err(), length > 64);
    }
    let reading = async {
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.expect("readable");
        all
    };
    let (all, ()) = tokio::join!(reading, socket.answer_close(1000, WITHIN * 20));
    let wanted = [
        &[FINAL | TEXT, 10][..],
        &[b'x'; 10],
        &[FINAL | TEXT, 126],
        &20_000_u16.to_be_bytes(),
        &vec![b'x'; 20_000],
        &[FINAL | CLOSE, 2],
        &1000_u16.to_be_bytes(),
    ];
    assert!(all == wanted.concat());
}

/// How it ends to send `length` bytes to a client that takes so many of them every ten milliseconds.
async fn sent_at(length: usize, taken: usize) -> io::Result<()> {
    let (server, mut client) = duplex(64);
    let memory = MemoryPool::new(1 << 20, 100);
    let pace = Pace { window: Duration::from_millis(200), per_second: 20_000 };
    let limits = MessageLimits { message: 10, within: WITHIN, pace };
    let mut socket = Socket::new(server, limits, move || memory.reserve(Owner::default()));
    let taking = async {
        let mut bytes = vec![0; taken];
        while client.read_exact(&mut bytes).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        sent = socket.send_text([vec![b'x'; length].into()]) => sent,
        () = taking => panic!("the socket is open"),
    }
}

#[tokio::test]
async fn who_takes_a_message_too_slowly_is_given_up() {
    let slow = sent_at(100_000, 10).await.map_err(|error| error.kind());
    assert_eq!(slow, Err(io::ErrorKind::TimedOut));
    sent_at(200_000, 4_000).await.expect("fast enough");
    sent_at(1_000, 64).await.expect("short");
}

#[tokio::test]
async fn a_message_holds_its_memory_until_it_is_sent() {
    let (server, mut client) = duplex(64);
    let pool = MemoryPool::new(1 << 20, 100);
    let mut reserved = pool.reserve(Owner::default());
    reserved.grow(50_000).expect("it fits");
    let limits = MessageLimits { message: 10, within: WITHIN, pace: PACE };
    let memory = MemoryPool::new(1 << 20, 100);
    let mut socket = Socket::new(server, limits, move || memory.reserve(Owner::default()));
    let body = crate::http::subscriptions::sent::with_memory(vec![b'x'; 50_000].into(), reserved);
    let text: Vec<_> =
        [Bytes::from_static(b"<")].into_iter().chain(body).chain([Bytes::from_static(b">")]).collect();
    assert!(timeout(WITHIN / 10, socket.send_text(text)).await.is_err(), "nobody reads");
    assert_eq!(pool.held(), 50_000);
    let mut all = vec![0; 4 + 50_002];
    let (read, flushed) = tokio::join!(client.read_exact(&mut all), socket.flush());
    assert_eq!((read.is_ok(), flushed.is_ok(), pool.held()), (true, true, 0));
    assert_eq!(all, [&[FINAL | TEXT, 126, 0xc3, 0x52][..], b"<", &vec![b'x'; 50_000], b">"].concat());
}
