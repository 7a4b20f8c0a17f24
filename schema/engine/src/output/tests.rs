//! How long an answer may get, when its writing is interrupted, and what is told of what failed.

use std::time::Duration;

use super::*;
use crate::bounds::{Memory, Owner, PIECE};

fn writer<'a>(most: usize, piece: usize) -> Writer<'a> {
    let (memory, taken) = (Memory::of(usize::MAX), Taken::default());
    let bound = Bounds { most, memory, taken, owner: Owner::Many, piece }.answer();
    Writer::resume(Unfinished { out: Chunks::default(), errors: Errors::default(), bound })
}

#[expect(clippy::unnecessary_wraps, reason = "what writes a value may fail")]
fn item(writer: &mut Writer<'_>) -> Result<(), Unwritten> {
    writer.out.extend(b"\"0123456789\"");
    Ok(())
}

/// Writing is work in memory, and yet the request's time can be up in the middle of it.
#[tokio::test]
async fn a_deadline_is_seen_while_an_answer_is_written() {
    let mut writer = writer(usize::MAX, 1_000);
    let writing = writer.whole(|writer| writer.list(10_000_000, false, |_, writer| item(writer)));
    assert!(tokio::time::timeout(Duration::ZERO, writing).await.is_err());
    assert!(writer.out.len() < 50_000_000, "{} bytes", writer.out.len());
}

/// Two lists of non-null items beside each other, of which one item has failed and one was not loaded because of it.
async fn answered(on_error: OnError) -> (bool, String, usize) {
    let mut writer = writer(usize::MAX, 1_000);
    writer.errors = Errors::default().handled(on_error);
    let place = SourceLocation { line: 1, column: 1 };
    let halted = on_error == OnError::Halt;
    let writing = writer.whole(|writer| {
        writer.list(2, false, |list, writer| {
            writer.list(3, false, |index, writer| match (list, index) {
                (0, 1) if halted => Err(writer.fail(&FieldError::halted(), place)),
                (1, 1) => Err(writer.fail(&FieldError::bad_input("wrong"), place)),
                _ => item(writer),
            })
        })
    });
    let written = writing.await.expect("it is short").is_ok();
    let text = String::from_utf8(writer.out.end().clone()).expect("text");
    (written, text.replace("\"0123456789\"", "1"), writer.errors.codes.len())
}

#[tokio::test]
async fn a_failed_value_is_null_where_the_request_wants_it() {
    assert!(!answered(OnError::Propagate).await.0, "it takes everything with it");
    assert_eq!(answered(OnError::Null).await, (true, "[[1,1,1],[1,null,1]]".to_owned(), 1));
    let (written, _, errors) = answered(OnError::Halt).await;
    assert_eq!((written, errors), (false, 1), "what was not loaded hides no error and tells none");
}

#[tokio::test]
async fn an_answer_that_is_too_long_ends_early() {
    for nullable in [false, true] {
        let mut writer = writer(10_000, 1_000);
        let writing = writer.whole(|writer| {
            writer.field("a", nullable, |writer| {
                writer.list(1_000_000, nullable, |_, writer| {
                    writer.list(1_000, nullable, |_, writer| item(writer))
                })
            })
        });
        let error = writing.await.expect_err("it is too long");
        assert_eq!(error.code, Code::CostLimit);
        assert!((10_000..12_000).contains(&writer.out.len()), "{} bytes", writer.out.len());
    }
}

/// What a long answer takes is its bytes and a chunk, and that is what is counted.
#[tokio::test]
async fn a_long_answer_takes_little_more_than_its_bytes() {
    const MOST: usize = 64 << 20;
    let long = "x".repeat(300_000);
    for (value, count) in [("0123456789", 1_000_000), (&*long, 40)] {
        let memory = Memory::of(MOST);
        let (taken, owner) = (Taken::default(), Owner::Many);
        let bounds = Bounds { most: usize::MAX, memory, taken, owner, piece: PIECE };
        let errors = Errors::default();
        let out = Chunks::default();
        let mut writer = Writer::resume(Unfinished { out, errors, bound: bounds.answer() });
        let mut most_beside = 0;
        let writing = writer.whole(|writer| {
            writer.list(count, false, |_, writer| {
                write_text(value, writer.out.end());
                most_beside = most_beside.max(writer.out.allocated() - writer.out.len());
                Ok(())
            })
        });
        assert_eq!(writing.await.map_err(|error| error.code), Ok(Ok(())));
        assert!(writer.out.len() > 10_000_000);
        assert!(most_beside < writer.out.len() / 16, "{most_beside} bytes beside {}", writer.out.len());
        let answer = writer.finish().finished(&Arc::default(), &bounds);
        let left = MOST - answer.out.allocated();
        assert!(bounds.hold(left + 1).is_none() && bounds.hold(left).is_some(), "all of it is counted");
    }
}

/// What was cut away is no reason to go on for as long.
#[tokio::test]
async fn it_stops_again_after_it_was_cut_back() {
    let mut writer = writer(usize::MAX, 1_000);
    let mut calls = 0;
    let place = SourceLocation { line: 1, column: 1 };
    let error = FieldError::new(Code::BadUserInput, "wrong");
    let writing = writer.whole(|writer| {
        calls += 1;
        writer.list(2, true, |index, writer| {
            writer.list(10_000, false, |_, writer| item(writer))?;
            if index == 0 { Err(writer.fail(&error, place)) } else { Ok(()) }
        })
    });
    assert_eq!(writing.await.map_err(|error| error.code), Ok(Ok(())));
    assert!(writer.out.len() < 150_000 && calls > 250, "{calls} pieces, {} bytes", writer.out.len());
}

#[tokio::test]
async fn errors_count_as_a_part_of_the_answer() {
    let mut writer = writer(50_000, 1_000);
    let error = FieldError::new(Code::BadUserInput, "long ".repeat(70));
    let location = SourceLocation { line: 1, column: 1 };
    let writing = writer.whole(|writer| {
        writer
            .field("a", true, |writer| writer.list(900, true, |_, writer| Err(writer.fail(&error, location))))
    });
    assert_eq!(writing.await.map_err(|error| error.code), Err(Code::CostLimit));
    assert!(writer.out.len() < 10_000 && writer.errors.json.len() < 60_000);
}
