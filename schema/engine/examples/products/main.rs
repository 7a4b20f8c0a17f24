//! The schema `products` of Apollo's subgraph compatibility suite, in memory and behind a few lines of HTTP:
//! a whole subgraph of a federation that is built on the engine alone. The suite asks it to find out what the
//! engine can do. `_entities` of its types is in `references`, what its types say to composers in `marks`.
//!
//!     PRODUCTS_ADDRESS=127.0.0.1:4001 cargo run -p engine --example products
//!     curl -s http://127.0.0.1:4001/graphql -d '{"query":"{ product(id: \"apollo-federation\") { sku } }"}'

mod marks;
mod references;

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
    time::Instant,
};

use async_graphql::{ID, InputObject, Variables, registry::Registry as Types};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{
        HeaderMap,
        header::{CONTENT_TYPE, HeaderName},
    },
    routing::post,
};
use chrono::Utc;
use engine::{
    batch::{Loaded, Loader, Source},
    context::Context,
    edge::{Many, NoArguments, One},
    error::{Code, FieldError, RequestError},
    execute::{Executor, Settings, refused},
    federation::trace::{Clock, Tree},
    object::{Entity, Object, Visible},
    output::Errors,
    scalar::{Leaf, write_text},
    service::Service,
};
use prometheus_client::registry::Registry;

type Graph = Arc<Executor<Query>>;

#[tokio::main]
async fn main() {
    let address = std::env::var("PRODUCTS_ADDRESS").expect("PRODUCTS_ADDRESS says where to listen");
    let listener = tokio::net::TcpListener::bind(&address).await.expect("the address is free");
    let settings =
        Settings { federation: Some(&[marks::CUSTOM]), types: marks::mark_all, ..Settings::default() };
    let graph: Graph = Arc::new(Executor::new(settings, &mut Registry::default()));
    let app = Router::new().route("/graphql", post(serve)).with_state(graph);
    axum::serve(listener, app).await.expect("it serves until it is ended");
}

/// A request in JSON.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    query: String,
    operation_name: Option<String>,
    #[serde(default)]
    variables: Variables,
}

/// Answers a request over HTTP, with the trace that gateways ask for.
async fn serve(
    State(graph): State<Graph>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(HeaderName, &'static str); 1], Vec<u8>) {
    let is_traced = headers.get("apollo-federation-include-trace").is_some_and(|value| value == "ftv1");
    let answer = match serde_json::from_slice(&body) {
        Ok(request) => answer(&graph, request, is_traced).await,
        Err(error) => refused(&[RequestError::new(Code::BadUserInput, format!("Invalid request: {error}."))]),
    };
    ([(CONTENT_TYPE, "application/json")], answer)
}

#[expect(clippy::disallowed_methods, reason = "a trace says when it began; this program has no other clock")]
async fn answer(graph: &Graph, request: Request, is_traced: bool) -> Vec<u8> {
    let (began, started) = (Utc::now(), Instant::now());
    let mut ctx = graph.context(InMemory, Sdl(graph.sdl().into()));
    ctx.clock = is_traced.then(Clock::start);
    let document = match graph.prepare(&request.query) {
        Ok(document) => document,
        Err(errors) => return refused(&errors),
    };
    let errors = Errors::default().traced(is_traced.then(|| Box::new(Tree::new(graph.types()))));
    let (name, variables) = (request.operation_name.as_deref(), request.variables);
    match graph.run(&document, name, variables, Query, &ctx, errors).await {
        Ok(mut answer) => {
            if let Some(trace) = answer.errors.trace.take() {
                answer.out.extend(b",\"extensions\":{\"ftv1\":");
                write_text(&trace.finish(began, started.elapsed()), answer.out.end());
                answer.out.push(b'}');
            }
            answer.finished(&Arc::default(), &ctx.bounds).out.into_vec()
        }
        Err(error) => refused(&[error]),
    }
}

/// The schema as text, for `_service`.
struct Sdl(Arc<str>);

/// A text that is an `ID`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Id(String);

impl Leaf for Id {
    fn type_ref(types: &mut Types) -> String {
        <ID as async_graphql::OutputType>::create_type_info(types)
    }

    fn write(&self, out: &mut Vec<u8>) {
        write_text(&self.0, out);
    }
}

/// Declares objects over rows that everybody may see.
macro_rules! objects {
    ($($name:ident: $row:ident { $($field:ident: $type:ty),+ })+) => {$(
        struct $row {
            $($field: $type,)+
        }

        #[derive(Clone)]
        struct $name {
            row: Arc<$row>,
        }

        impl Visible for $name {
            type Row = $row;

            fn visible_to(_: &Context, row: Arc<$row>) -> Option<Self> {
                Some(Self { row })
            }
        }
    )+};
}

objects! {
    Product: ProductRow {
        id: Id, sku: Option<String>, package: Option<String>, variation: Arc<VariationRow>, research: Arc<ResearchRow>
    }
    Variation: VariationRow { id: Id }
    Dimension: DimensionRow { size: Option<String>, weight: Option<f64>, unit: Option<String> }
    Research: ResearchRow { study: Arc<StudyRow>, outcome: Option<String> }
    Study: StudyRow { case_number: Id, description: Option<String> }
    Deprecated: DeprecatedRow { sku: String, package: String, reason: Option<String> }
    User: UserRow { email: Id, name: Option<String>, total: Option<i32>, years: i32 }
    Inventory: InventoryRow { id: Id, deprecated: Vec<Arc<DeprecatedRow>> }
}

// The data, as the suite has it.

struct World {
    products: Vec<Arc<ProductRow>>,
    dimension: Arc<DimensionRow>,
    deprecated: Arc<DeprecatedRow>,
    inventory: Arc<InventoryRow>,
}

const EMAIL: &str = "support@apollographql.com";

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let text = |text: &str| Some(text.to_owned());
    let product = |name: &str, sku: &str, package: &str, variation: &str, case: &str, study: &str| {
        let study = StudyRow { case_number: Id(case.to_owned()), description: text(study) };
        Arc::new(ProductRow {
            id: Id(name.to_owned()),
            sku: text(sku),
            package: text(package),
            variation: Arc::new(VariationRow { id: Id(variation.to_owned()) }),
            research: Arc::new(ResearchRow { study: Arc::new(study), outcome: None }),
        })
    };
    let deprecated = Arc::new(DeprecatedRow {
        sku: "apollo-federation-v1".to_owned(),
        package: "@apollo/federation-v1".to_owned(),
        reason: text("Migrate to Federation V2"),
    });
    World {
        products: vec![
            product(
                "apollo-federation",
                "federation",
                "@apollo/federation",
                "OSS",
                "1234",
                "Federation Study",
            ),
            product("apollo-studio", "studio", "", "platform", "1235", "Studio Study"),
        ],
        dimension: Arc::new(DimensionRow { size: text("small"), weight: Some(1.0), unit: text("kg") }),
        inventory: Arc::new(InventoryRow {
            id: Id("apollo-oss".to_owned()),
            deprecated: vec![Arc::clone(&deprecated)],
        }),
        deprecated,
    }
});

fn product(matches: impl Fn(&ProductRow) -> bool) -> Option<Arc<ProductRow>> {
    WORLD.products.iter().find(|product| matches(product)).cloned()
}

fn deprecated(sku: &str, package: &str) -> Option<Arc<DeprecatedRow>> {
    let row = &WORLD.deprecated;
    (row.sku == sku && row.package == package).then(|| Arc::clone(row))
}

/// The one who made everything; another subgraph knows more of them.
fn creator() -> UserRow {
    UserRow { email: Id(EMAIL.to_owned()), name: Some("Jane Smith".to_owned()), total: Some(1337), years: 10 }
}

// Loaders, which read memory.

#[derive(Clone)]
struct InMemory;

impl Source for InMemory {
    type Error = Infallible;

    fn field_error(error: &Infallible, _: &'static str) -> FieldError {
        match *error {}
    }
}

macro_rules! loader {
    ($name:ident, $text:literal, $key:ty => $value:ty, |$one:ident| $load:expr) => {
        #[derive(Clone, PartialEq, Eq, Hash)]
        struct $name;

        impl Loader for $name {
            const NAME: &'static str = $text;
            type Source = InMemory;
            type Key = $key;
            type Value = $value;

            async fn load(self, _: InMemory, keys: Arc<[$key]>) -> Loaded<Self> {
                Ok(keys.iter().filter_map(|$one| Some(($one.clone(), $load?))).collect())
            }
        }
    };
}

loader!(ById, "products.by_id", String => Arc<ProductRow>, |id| product(|row| row.id.0 == *id));
loader!(ByPackage, "products.deprecated", (String, String) => Arc<DeprecatedRow>, |key| deprecated(&key.0, &key.1));
loader!(Variations, "products.variation", Id => Arc<VariationRow>, |id| {
    product(|row| row.id == *id).map(|row| Arc::clone(&row.variation))
});
loader!(Dimensions, "products.dimension", Id => Arc<DimensionRow>, |_id| Some(Arc::clone(&WORLD.dimension)));
loader!(Creators, "products.creator", () => Arc<UserRow>, |_key| Some(Arc::new(creator())));
loader!(Researches, "products.research", Id => Arc<ResearchRow>, |id| {
    product(|row| row.id == *id).map(|row| Arc::clone(&row.research))
});
loader!(Studies, "products.study", Id => Arc<StudyRow>, |case| {
    let found = product(|row| row.research.study.case_number == *case);
    found.map(|row| Arc::clone(&row.research.study))
});
loader!(Inventories, "products.inventory", Id => Arc<InventoryRow>, |id| {
    (WORLD.inventory.id == *id).then(|| Arc::clone(&WORLD.inventory))
});

// The declaration.

/// An edge that takes no arguments.
type To<T, L, U> = One<T, NoArguments, L, U>;

/// `Query.product`
#[derive(InputObject)]
struct ProductArgs {
    id: ID,
}

/// `Query.deprecatedProduct`
#[derive(InputObject)]
struct DeprecatedArgs {
    sku: String,
    package: String,
}

/// The root.
#[derive(Clone)]
struct Query;

impl Entity for Query {
    fn object() -> &'static Object<Self> {
        &QUERY
    }
}

static QUERY: LazyLock<Object<Query>> = LazyLock::new(|| {
    Object::<Query>::new("Query", "What can be asked for.")
        .edge(
            "product",
            "A product.",
            One::<Query, ProductArgs, ById, Product>::nullable(
                |_| Ok(ById),
                |_, given| Ok(Some(given.args.id.to_string())),
            ),
        )
        .edge(
            "deprecatedProduct",
            "A product that is not made any more.",
            One::<Query, DeprecatedArgs, ByPackage, Deprecated>::nullable(
                |_| Ok(ByPackage),
                |_, given| Ok(Some((given.args.sku.clone(), given.args.package.clone()))),
            ),
        )
        .unlisted_edge("_entities", references::edge())
        .unlisted_edge("_service", Service::new(|ctx| &ctx.data::<Sdl>().0))
});

/// Gives each type its declaration.
macro_rules! declare {
    ($($name:ident as $declared:literal $declaration:expr;)+) => {$(
        impl Entity for $name {
            fn object() -> &'static Object<Self> {
                static OBJECT: LazyLock<Object<$name>> = LazyLock::new(|| {
                    let declaration: fn(Object<$name>) -> Object<$name> = $declaration;
                    declaration(Object::new($declared, "A type of the suite."))
                });
                &OBJECT
            }
        }
    )+};
}

declare! {
    Product as "Product" |product| product
        .key("id")
        .key("sku package")
        .key("sku variation { id }")
        .column("id", "", |it| &it.row.id)
        .column("sku", "", |it| &it.row.sku)
        .column("package", "", |it| &it.row.package)
        .edge("variation", "", To::<Product, Variations, Variation>::nullable(|_| Ok(Variations), |it, _| Ok(Some(it.row.id.clone()))))
        .edge("dimensions", "", To::<Product, Dimensions, Dimension>::nullable(|_| Ok(Dimensions), |it, _| Ok(Some(it.row.id.clone()))))
        .edge("createdBy", "", To::<Product, Creators, User>::nullable(|_| Ok(Creators), |_, _| Ok(Some(()))))
        .computed("notes", "", |_| None::<String>)
        .edge("research", "", Many::<Product, NoArguments, Researches, Research>::new(
            |_| Ok(Researches), |it: &Product, _| Ok(Some(it.row.id.clone())), |found, _| Ok(vec![Arc::clone(found)]),
        ));
    Variation as "ProductVariation" |variation| variation.column("id", "", |it| &it.row.id);
    Dimension as "ProductDimension" |dimension| dimension
        .shareable()
        .column("size", "", |it| &it.row.size)
        .column("weight", "", |it| &it.row.weight)
        .column("unit", "", |it| &it.row.unit);
    Research as "ProductResearch" |research| research
        .key("study { caseNumber }")
        .edge("study", "", To::<Research, Studies, Study>::required(
            |_| Ok(Studies), |it: &Research, _| Ok(Some(it.row.study.case_number.clone())),
        ))
        .column("outcome", "", |it| &it.row.outcome);
    Study as "CaseStudy" |study| study
        .column("caseNumber", "", |it| &it.row.case_number)
        .column("description", "", |it| &it.row.description);
    Deprecated as "DeprecatedProduct" |deprecated| deprecated
        .key("sku package")
        .column("sku", "", |it| &it.row.sku)
        .column("package", "", |it| &it.row.package)
        .column("reason", "", |it| &it.row.reason)
        .edge("createdBy", "", To::<Deprecated, Creators, User>::nullable(|_| Ok(Creators), |_, _| Ok(Some(()))));
    User as "User" |user| user
        .key("email")
        .computed("averageProductsCreatedPerYear", "", |it| it.row.total.map(|total| total / it.row.years.max(1)))
        .column("email", "", |it| &it.row.email)
        .column("name", "", |it| &it.row.name)
        .column("totalProductsCreated", "", |it| &it.row.total)
        .column("yearsOfEmployment", "", |it| &it.row.years);
    Inventory as "Inventory" |inventory| inventory
        .key("id")
        .column("id", "", |it| &it.row.id)
        .edge("deprecatedProducts", "", Many::<Inventory, NoArguments, Inventories, Deprecated>::new(
            |_| Ok(Inventories), |it: &Inventory, _| Ok(Some(it.row.id.clone())), |found, _| Ok(found.deprecated.clone()),
        ));
}
