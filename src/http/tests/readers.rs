//! Readers of answers that take nothing, or too little, over HTTP/1.1 and HTTP/2; and those that must be let be.

use super::*;

const LARGE: usize = 8 << 20;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const CANCEL: u32 = 8;

/// A large answer, a small one, and one that says something now and then.
fn routes() -> Router {
    let quiet = || async {
        let parts = futures_util::stream::unfold(0, |part| async move {
            sleep(Duration::from_millis(if part == 0 { 0 } else { 900 })).await;
            (part < 2).then_some((Ok::<_, std::io::Error>("part"), part + 1))
        });
        Body::from_stream(parts)
    };
    Router::new()
        .route("/", get(|| async { vec![b'x'; LARGE] }))
        .route("/small", get(|| async { "small" }))
        .route("/quiet", get(quiet))
}

fn limits(config: &mut Config) {
    config.http.write_timeout = Duration::from_millis(300);
    config.http.min_answer_rate.0 = 4 << 20;
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET path`, by HPACK's static table.
pub(super) fn get_frame(stream: u32, path: &str) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
    block.extend(path.as_bytes());
    block.extend([0x01, 1, b'x']);
    frame(HEADERS, 5, stream, &block)
}

/// A connection of HTTP/2 whose streams may send so much.
pub(super) async fn connect(address: &str, window: u32) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    stream.write_all(PREFACE).await.expect("sent");
    stream.write_all(&frame(SETTINGS, 0, 0, &settings)).await.expect("sent");
    stream
}

/// Kind, flags, stream and payload of the next frame.
async fn next_frame(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// Reads until this frame of this stream comes; what of DATA came on the stream until then.
pub(super) async fn until(stream: &mut TcpStream, kind: u8, of: u32) -> (Vec<u8>, usize) {
    let mut data = 0;
    let reading = async {
        loop {
            let (found, _, on, payload) = next_frame(stream).await.expect("the connection is open");
            if (found, on) == (kind, of) {
                return (payload, data);
            }
            if (found, on) == (DATA, of) {
                data += payload.len();
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("it comes")
}

/// The last part is still on its way when the stream that makes the body has ended; it is not asked again.
#[tokio::test]
async fn a_stream_over_http2_is_whole_and_ends() {
    let parts = || async {
        let parts = futures_util::stream::unfold(0, |part| async move {
            (part < 3).then_some((Ok::<_, std::io::Error>("part"), part + 1))
        });
        Body::from_stream(parts)
    };
    let (address, _stop, _server) = serving(Router::new().route("/", get(parts)), limits).await;
    let mut stream = connect(&address, 65_535).await;
    for id in [1, 3, 5] {
        stream.write_all(&get_frame(id, "/")).await.expect("sent");
        let (mut data, mut is_over) = (Vec::new(), false);
        while !is_over {
            let reading = timeout(Duration::from_secs(20), next_frame(&mut stream));
            let (kind, flags, on, payload) = reading.await.expect("it ends").expect("the connection is open");
            assert!((kind, on) != (RST_STREAM, id), "reset after {} bytes", data.len());
            if (kind, on) == (DATA, id) {
                data.extend(payload);
                is_over = flags & END_STREAM != 0;
            }
        }
        assert_eq!(data, b"partpartpart");
    }
}

#[tokio::test]
async fn a_stalled_http2_stream_is_reset_alone() {
    let (address, _stop, _server) = serving(routes(), limits).await;
    let mut stream = connect(&address, 0).await;
    for id in [1, 3] {
        stream.write_all(&get_frame(id, "/")).await.expect("sent");
    }
    for id in [1, 3] {
        let (payload, data) = until(&mut stream, RST_STREAM, id).await;
        assert_eq!((payload, data), (CANCEL.to_be_bytes().to_vec(), 0));
    }
    stream.write_all(&get_frame(5, "/small")).await.expect("sent");
    stream.write_all(&frame(WINDOW_UPDATE, 0, 5, &100_u32.to_be_bytes())).await.expect("sent");
    let (payload, _) = until(&mut stream, DATA, 5).await;
    assert_eq!(payload, b"small");
}

#[tokio::test]
async fn a_stream_that_takes_a_little_is_reset_too() {
    let (address, _stop, _server) = serving(routes(), limits).await;
    let mut stream = connect(&address, 65_535).await;
    stream.write_all(&get_frame(1, "/")).await.expect("sent");
    let dribbling = async {
        let mut data = 0;
        loop {
            let (kind, _, on, payload) = next_frame(&mut stream).await.expect("the connection is open");
            match (kind, on) {
                (RST_STREAM, 1) => return (payload, data),
                (DATA, 1) => {
                    data += payload.len();
                    sleep(Duration::from_millis(100)).await;
                    let more = 1_000_u32.to_be_bytes();
                    for id in [0, 1] {
                        stream.write_all(&frame(WINDOW_UPDATE, 0, id, &more)).await.expect("sent");
                    }
                }
                _ => {}
            }
        }
    };
    let (payload, data) = timeout(Duration::from_secs(20), dribbling).await.expect("it is reset");
    assert_eq!(payload, CANCEL.to_be_bytes());
    assert!(data < LARGE / 2, "{data}");
}

/// Each answer that is held has to be taken at the rate: several of one connection cannot share it.
#[tokio::test]
async fn each_stream_of_a_connection_is_held_to_the_rate_by_itself() {
    const STREAMS: u32 = 8;
    let (address, _stop, _server) = serving(routes(), limits).await;
    let mut stream = connect(&address, 65_535).await;
    let ids: Vec<u32> = (0..STREAMS).map(|number| 2 * number + 1).collect();
    for id in &ids {
        stream.write_all(&get_frame(*id, "/")).await.expect("sent");
    }
    let (mut read, mut write) = stream.into_split();
    // A quarter of the rate for each, twice the rate for all together.
    let granting = tokio::spawn(async move {
        loop {
            sleep(Duration::from_millis(50)).await;
            let more = (50_u32 << 10).to_be_bytes();
            let windows: Vec<u8> = [0; STREAMS as usize]
                .into_iter()
                .chain((0..STREAMS).map(|number| 2 * number + 1))
                .flat_map(|id| frame(WINDOW_UPDATE, 0, id, &more))
                .collect();
            if write.write_all(&windows).await.is_err() {
                return;
            }
        }
    });
    let mut taken = std::collections::HashMap::new();
    let mut reset = Vec::new();
    let reading = async {
        while reset.len() < ids.len() {
            let (kind, _, on, payload) = next_frame(&mut read).await.expect("the connection is open");
            match kind {
                DATA => *taken.entry(on).or_insert(0) += payload.len(),
                RST_STREAM => reset.push(on),
                _ => {}
            }
        }
    };
    timeout(Duration::from_secs(20), reading).await.expect("all are reset");
    granting.abort();
    reset.sort_unstable();
    assert_eq!(reset, ids);
    assert!(taken.values().all(|taken| *taken < LARGE), "{taken:?}");
}

#[tokio::test]
async fn an_unread_answer_tail_closes_the_connection() {
    let (address, _stop, server) = serving(routes(), limits).await;
    // Handed over whole with the first byte of the window: there is no stream left to reset.
    let mut stream = connect(&address, 2).await;
    stream.write_all(&get_frame(1, "/small")).await.expect("sent");
    let ended = async { while next_frame(&mut stream).await.is_some() {} };
    timeout(Duration::from_secs(20), ended).await.expect("it is cut");
    drop(server);
}

#[tokio::test]
async fn who_reads_slowly_over_http_1_is_cut_off() {
    let (address, _stop, _server) = serving(routes(), limits).await;
    let mut stream = TcpStream::connect(&address).await.expect("connected");
    stream.write_all(HELLO).await.expect("sent");
    let mut taken = 0;
    let dribbling = async {
        let mut part = vec![0; 16 << 10];
        while let Ok(read @ 1..) = stream.read(&mut part).await {
            taken += read;
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_mins(1), dribbling).await.expect("it is cut");
    assert!(taken < LARGE, "{taken}");
}

#[tokio::test]
async fn who_takes_what_there_is_is_not_cut_off() {
    let (address, _stop, _server) = serving(routes(), limits).await;
    let closing = "GET /quiet HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    assert!(exchange(&address, closing).await.ends_with("4\r\npart\r\n4\r\npart\r\n0\r\n\r\n"));
    let mut stream = connect(&address, 65_535).await;
    stream.write_all(&get_frame(1, "/quiet")).await.expect("sent");
    let (first, _) = until(&mut stream, DATA, 1).await;
    let (second, _) = until(&mut stream, DATA, 1).await;
    let (end, _) = until(&mut stream, DATA, 1).await;
    assert_eq!((&first[..], &second[..], &end[..]), (&b"part"[..], &b"part"[..], &b""[..]));
    // A large one, read to its end.
    stream.write_all(&frame(PING, 0, 0, &[0; 8])).await.expect("sent");
    let mut stream = connect(&address, (1 << 31) - 1).await;
    stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes())).await.expect("sent");
    stream.write_all(&get_frame(1, "/")).await.expect("sent");
    let mut data = 0;
    while data < LARGE {
        let (kind, _, _, payload) = next_frame(&mut stream).await.expect("open");
        assert_ne!(kind, RST_STREAM);
        if kind == DATA {
            data += payload.len();
        }
    }
    assert_eq!(data, LARGE);
}
