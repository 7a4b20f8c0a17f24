//! Answers documents about a small domain in memory, some of whose fields fail: `answers --sdl` prints the schema;
//! without it a JSON object is read from each line of its input (`query`, `variables`) and the answer written to a line
//! of its output. For `tests/conformance`, where graphql-js answers the same from the same domain
//! (`language/domain.mjs`): what fails, and what null does to the fields around it, is for both to find out.

use std::{
    io::{self, BufRead, Write},
    sync::{Arc, LazyLock},
};

use async_graphql::InputObject;
use engine::{
    batch::{Loaded, Loader, Source},
    context::Context,
    document::Rules,
    edge::{Many, NoArguments, One},
    error::FieldError,
    execute::{Executor, Settings},
    limits::Limits,
    object::{Entity, Object, Visible},
    variables,
};
use prometheus_client::registry::Registry;
use serde_json::Value;

const THINGS: i32 = 20;

struct ThingRow {
    id: i32,
    name: String,
    label: Option<String>,
    weight: f64,
    is_odd: bool,
}

fn row(id: i32) -> Arc<ThingRow> {
    Arc::new(ThingRow {
        id,
        name: format!("Thing \"{id}\" ü"),
        label: (id % 3 != 0).then(|| format!("label\n{id}")),
        weight: f64::from(id) / 4.0,
        is_odd: id % 2 == 1,
    })
}

fn lost(id: i32, what: &str) -> FieldError {
    FieldError::bad_input(format!("thing {id} lost the {what}"))
}

#[derive(Clone)]
struct Nothing;

impl Source for Nothing {
    type Error = String;

    fn field_error(error: &String, _: &'static str) -> FieldError {
        FieldError::internal_by(error)
    }
}

#[derive(Clone)]
struct Query;

#[derive(Clone)]
struct Thing(Arc<ThingRow>);

#[derive(Clone, PartialEq, Eq, Hash)]
struct ById;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Few;

impl Loader for ById {
    const NAME: &'static str = "by_id";
    type Source = Nothing;
    type Key = i32;
    type Value = Arc<ThingRow>;

    async fn load(self, _: Nothing, ids: Arc<[i32]>) -> Loaded<Self> {
        Ok(ids.iter().filter(|id| (0..THINGS).contains(*id)).map(|id| (*id, row(*id))).collect())
    }
}

impl Loader for Few {
    const NAME: &'static str = "few";
    type Source = Nothing;
    type Key = i32;
    type Value = Vec<Arc<ThingRow>>;

    async fn load(self, _: Nothing, ids: Arc<[i32]>) -> Loaded<Self> {
        let few = |id: i32| (1..=id % 4).map(|step| row((id + step) % THINGS)).collect();
        Ok(ids.iter().map(|id| (*id, few(*id))).collect())
    }
}

impl Visible for Thing {
    type Row = ThingRow;

    fn visible_to(_: &Context, row: Arc<ThingRow>) -> Option<Self> {
        Some(Self(row))
    }
}

/// Which thing.
#[derive(InputObject)]
struct Which {
    /// Its number.
    id: i32,
    /// Added to the number.
    #[graphql(default = 0)]
    shift: i32,
}

impl Entity for Thing {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Thing>> = LazyLock::new(|| {
            Object::<Thing>::new("Thing", "")
                .column("id", "", |thing| &thing.0.id)
                .column("name", "", |thing| &thing.0.name)
                .column("label", "", |thing| &thing.0.label)
                .column("weight", "", |thing| &thing.0.weight)
                .guarded("hidden", "", |thing| thing.0.is_odd, |thing| &thing.0.name)
                .edge(
                    "mentor",
                    "",
                    One::<Thing, NoArguments, ById, Thing>::nullable(
                        |_| Ok(ById),
                        |thing, _| match thing.0.id {
                            id if id % 5 == 2 => Err(lost(id, "mentor")),
                            id if id % 5 == 4 => Ok(None),
                            id => Ok(Some((id * 7 + 1) % THINGS)),
                        },
                    ),
                )
                .edge(
                    "deputy",
                    "",
                    One::<Thing, NoArguments, ById, Thing>::required(
                        |_| Ok(ById),
                        |thing, _| match thing.0.id {
                            id if id % 7 == 3 => Err(lost(id, "deputy")),
                            id if id % 7 == 5 => Ok(None),
                            id => Ok(Some((id * 3 + 2) % THINGS)),
                        },
                    ),
                )
                .edge(
                    "friends",
                    "",
                    Many::<Thing, NoArguments, Few, Thing>::new(
                        |_| Ok(Few),
                        |thing, _| match thing.0.id {
                            id if id % 6 == 4 => Err(lost(id, "friends")),
                            id => Ok(Some(id)),
                        },
                        |few, _| Ok(few.clone()),
                    ),
                )
        });
        &OBJECT
    }
}

impl Entity for Query {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<Query>> = LazyLock::new(|| {
            Object::<Query>::new("Query", "")
                .edge(
                    "thing",
                    "",
                    One::<Query, Which, ById, Thing>::nullable(
                        |_| Ok(ById),
                        |_, given| Ok(Some(given.args.id.wrapping_add(given.args.shift))),
                    ),
                )
                .edge(
                    "needed",
                    "",
                    One::<Query, Which, ById, Thing>::required(
                        |_| Ok(ById),
                        |_, given| Ok(Some(given.args.id.wrapping_add(given.args.shift))),
                    ),
                )
                .edge(
                    "few",
                    "",
                    Many::<Query, Which, Few, Thing>::new(
                        |_| Ok(Few),
                        |_, given| Ok(Some(given.args.id.rem_euclid(THINGS))),
                        |few, _| Ok(few.clone()),
                    ),
                )
        });
        &OBJECT
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limits = Limits {
        tokens: 20_000,
        nesting: 128,
        aliases: 5_000,
        directives: 5_000,
        root_fields: 5_000,
        depth: 100,
        cost: u64::MAX,
        ..Limits::gateway()
    };
    let rules = Rules { limits, ..Rules::default() };
    let executor =
        Executor::<Query>::new(Settings { rules, ..Settings::default() }, &mut Registry::default());
    let mut out = io::BufWriter::new(io::stdout().lock());
    if std::env::args().nth(1).as_deref() == Some("--sdl") {
        out.write_all(executor.sdl().as_bytes())?;
        return Ok(out.flush()?);
    }
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let text = request["query"].as_str().unwrap_or_default();
        let variables::VariableSets::One(given) = variables::read(&request["variables"])? else {
            return Err("each request has one set of variables".into());
        };
        let ctx = executor.context(Nothing, ());
        out.write_all(&executor.execute(text, given, Query, &ctx).await)?;
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}
