//! Fields with an ordinary resolver: how often and when it is called, what it may return, how its failures
//! are told, what it costs. Not here: edges and columns (`derives`).

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_graphql::{InputObject, Variables};
use engine::{
    batch::{Source, from_fn},
    context::Context,
    document::Rules,
    edge::{Many, NoArguments},
    error::FieldError,
    execute::{Executor, Settings},
    limits::Limits,
    object::Object,
    public::{Public, PublicRow},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// Rows of the list.
const ROWS: usize = 3;

#[derive(Clone)]
struct Numbers;

impl Source for Numbers {
    type Error = Infallible;
}

/// The data of a request.
struct Seen {
    calls: AtomicUsize,
    all_rows: Barrier,
}

struct Root;
struct Number(i32);

#[derive(InputObject)]
struct PlusArgs {
    #[graphql(default = 1)]
    by: i32,
}

impl PublicRow for Root {
    fn declare() -> Object<Public<Self>> {
        Object::<Public<Self>>::new("Query", "")
            .edge(
                "numbers",
                "",
                Many::<_, NoArguments, _, Public<Number>>::new(
                    |_| {
                        Ok(from_fn("numbers", async |_: Numbers, _: Arc<[()]>| {
                            let numbers = (0..ROWS as i32).map(|number| Arc::new(Number(number)));
                            Ok([((), numbers.collect::<Vec<_>>())].into_iter().collect())
                        }))
                    },
                    |_, _| Ok(Some(())),
                    |numbers, _| Ok(numbers.clone()),
                ),
            )
            .resolver("broken", "", async |_, _, _: Arc<NoArguments>| Err::<i32, _>(odd()))
    }
}

impl PublicRow for Number {
    fn declare() -> Object<Public<Self>> {
        Object::<Public<Self>>::new("Number", "")
            .column("value", "", |number| &number.0)
            .resolver("plus", "", async |number: Public<Number>, ctx: Context, args: Arc<PlusArgs>| {
                ctx.data::<Seen>().calls.fetch_add(1, Ordering::Relaxed);
                Ok(number.0 + args.by)
            })
            .resolver("together", "", async |_, ctx: Context, _: Arc<NoArguments>| {
                // Nobody comes through before all are here.
                ctx.data::<Seen>().all_rows.wait().await;
                Ok(true)
            })
            .resolver("loaded", "", async |number: Public<Number>, ctx: Context, _: Arc<NoArguments>| {
                let squares = from_fn("squares", async |_: Numbers, keys: Arc<[i32]>| {
                    Ok(keys.iter().map(|key| (*key, key * key)).collect())
                });
                ctx.batcher.load(squares, number.0).await
            })
            .resolver(
                "even",
                "",
                async |number: Public<Number>, _, _: Arc<NoArguments>| {
                    if number.0 % 2 == 0 { Ok(Some(number.0)) } else { Err(odd()) }
                },
            )
            .resolver("panics", "", async |number: Public<Number>, _, _: Arc<NoArguments>| {
                assert!(number.0 != 1, "one is not there");
                Ok(Some(number.0))
            })
            .resolver("next", "", async |number: Public<Number>, _, _: Arc<NoArguments>| {
                Ok(Public::from(Number(number.0 + 1)))
            })
            .resolver("half", "", async |number: Public<Number>, _, _: Arc<NoArguments>| {
                Ok((number.0 % 2 == 0).then(|| Public::from(Number(number.0 / 2))))
            })
            .resolver("below", "", async |number: Public<Number>, _, _: Arc<NoArguments>| {
                Ok((0..number.0).map(|below| Public::from(Number(below))).collect::<Vec<_>>())
            })
            .resolver("dear", "", async |_, _, _: Arc<NoArguments>| Ok(0))
            .weight(100)
    }
}

fn odd() -> FieldError {
    FieldError::bad_input("it is odd")
}

fn graph(cost: u64) -> Executor<Public<Root>> {
    let rules = Rules { limits: Limits { cost, ..Limits::default() }, ..Rules::default() };
    Executor::new(Settings { rules, federation: Some(&[]), ..Settings::default() }, &mut Registry::default())
}

async fn answer(query: &str) -> (Value, Context) {
    let graph = graph(10_000);
    let ctx = graph.context(Numbers, Seen { calls: AtomicUsize::new(0), all_rows: Barrier::new(ROWS) });
    let answer = graph.execute(query, Variables::default(), Root.into(), &ctx).await;
    (serde_json::from_slice(&answer).expect("JSON"), ctx)
}

#[tokio::test]
async fn a_resolver_is_awaited_once_for_each_row_with_its_arguments() {
    let (answer, ctx) = answer("{ numbers { plus a: plus(by: 10) } }").await;
    let wanted = json!([{ "plus": 1, "a": 10 }, { "plus": 2, "a": 11 }, { "plus": 3, "a": 12 }]);
    assert_eq!(answer, json!({ "data": { "numbers": wanted } }));
    assert_eq!(ctx.data::<Seen>().calls.load(Ordering::Relaxed), 2 * ROWS);
}

#[tokio::test]
async fn the_rows_of_a_level_are_awaited_concurrently() {
    let (answer, _) = answer("{ numbers { together } }").await;
    assert_eq!(answer["data"]["numbers"], json!(vec![json!({ "together": true }); ROWS]));
}

#[tokio::test]
async fn what_resolvers_load_is_loaded_together() {
    let (answer, ctx) = answer("{ numbers { loaded } }").await;
    assert_eq!(answer["data"]["numbers"], json!([{ "loaded": 0 }, { "loaded": 1 }, { "loaded": 4 }]));
    let loads: Vec<_> = ctx.batcher.batches().iter().map(|run| (run.loader, run.keys)).collect();
    assert_eq!(loads, [("numbers", 1), ("squares", ROWS)]);
}

#[tokio::test]
async fn a_failure_is_an_error_of_its_field_with_its_path() {
    let (answer, _) = answer("{ numbers { e: even panics } }").await;
    let wanted = json!([{ "e": 0, "panics": 0 }, { "e": null, "panics": null }, { "e": 2, "panics": 2 }]);
    assert_eq!(answer["data"]["numbers"], wanted);
    let errors: Vec<_> = answer["errors"].as_array().expect("errors").iter().collect();
    assert_eq!(errors.len(), 2, "{answer}");
    assert_eq!(
        (&errors[0]["message"], &errors[0]["path"]),
        (&json!("it is odd"), &json!(["numbers", 1, "e"]))
    );
    assert_eq!(errors[1]["path"], json!(["numbers", 1, "panics"]));
    assert_eq!(errors[1]["extensions"]["code"], "INTERNAL_SERVER_ERROR");
}

#[tokio::test]
async fn a_required_value_that_fails_nulls_its_parent() {
    let (answer, _) = answer("{ broken }").await;
    assert_eq!(answer["data"], Value::Null);
    assert_eq!(answer["errors"][0]["path"], json!(["broken"]));
}

#[tokio::test]
async fn a_resolver_may_return_objects() {
    let (answer, ctx) =
        answer("{ numbers { next { value plus } half { value } below { next { value } } } }").await;
    assert_eq!(answer.get("errors"), None, "{answer}");
    let wanted = json!([
        { "next": { "value": 1, "plus": 2 }, "half": { "value": 0 }, "below": [] },
        { "next": { "value": 2, "plus": 3 }, "half": null, "below": [{ "next": { "value": 1 } }] },
        {
            "next": { "value": 3, "plus": 4 },
            "half": { "value": 1 },
            "below": [{ "next": { "value": 1 } }, { "next": { "value": 2 } }],
        },
    ]);
    assert_eq!(answer["data"]["numbers"], wanted);
    let mut runs: Vec<_> =
        ctx.batcher.resolvers().iter().map(|run| (run.field.1, run.rows, run.failed)).collect();
    runs.sort_unstable();
    let wanted = [("below", 3, 0), ("half", 3, 0), ("next", 3, 0), ("next", 3, 0), ("plus", 3, 0)];
    assert_eq!(runs, wanted, "once for each field and level");
}

#[tokio::test]
async fn a_resolver_costs_its_weight_for_each_row() {
    // Ten rows are assumed: 10 objects, and 10 times 1 or 100.
    for (query, most) in [("{ numbers { plus } }", 20), ("{ numbers { dear } }", 1_010)] {
        for (limit, is_refused) in [(most, false), (most - 1, true)] {
            let graph = graph(limit);
            let seen = Seen { calls: AtomicUsize::new(0), all_rows: Barrier::new(ROWS) };
            let ctx = graph.context(Numbers, seen);
            let answer = graph.execute(query, Variables::default(), Root.into(), &ctx).await;
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            let code = &answer["errors"][0]["extensions"]["code"];
            assert_eq!(*code == "COST_LIMIT", is_refused, "{query}: {answer}");
        }
    }
    let sdl = graph(1).sdl().to_owned();
    assert!(sdl.contains("dear: Int! @cost(weight: 100)"), "{sdl}");
    assert!(sdl.contains("value: Int!\n"), "a column costs nothing: {sdl}");
}
