//! A graph over a test database, and the clients who ask it.

use std::time::Duration;

use entities::{
    CacheOptions, Role, Store,
    auth::{password, revocation::POLL, secret::Secret},
    id::{SessionId, UserId},
    idempotency::Lifetimes,
    webhook::targets::TargetRules,
};
use prometheus_client::registry::Registry;
use schema::auth::token::InvalidToken;
use schema::{
    Access, AccessOptions, Caller, Events, Graph, Limits, OnError, Opened, Options, Request, Taken,
    Variables, Viewer,
};
use sea_orm::{ConnectionTrait as _, DbBackend};
use serde_json::{Value, json};

use super::db;

/// A graph over one database.
pub(crate) struct TestApp {
    pub(crate) graph: Graph,
    pub(crate) store: Store,
    url: String,
}

impl TestApp {
    /// Over the SQLite file that nobody writes to.
    pub(crate) async fn sqlite() -> Self {
        Self::over(&db::shared_sqlite().await).await
    }

    /// Over the PostgreSQL database that nobody writes to.
    pub(crate) async fn postgres() -> Self {
        Self::over(&db::shared_postgres().await).await
    }

    /// Both, for questions with the same answer.
    pub(crate) async fn both() -> [Self; 2] {
        [Self::sqlite().await, Self::postgres().await]
    }

    /// Both, each of one's own, for tests that write.
    pub(crate) async fn both_own() -> [Self; 2] {
        [Self::over(&db::own_sqlite().await).await, Self::over(&db::own_postgres().await).await]
    }

    /// Over this database, with the secret that all have in common: as many as there are nodes.
    pub(crate) async fn over(url: &str) -> Self {
        Self::of(db::open(url).await, url)
    }

    fn of(store: Store, url: &str) -> Self {
        Self::polling(store, url, POLL)
    }

    /// An instance that asks this often what others have revoked.
    fn polling(store: Store, url: &str, poll: Duration) -> Self {
        // What a query may cost has tests of its own.
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        Self::with(store, url, poll, &Options { limits, ..Options::default() })
    }

    /// One of several subgraphs over the same database: these domains, as in `users,sessions`.
    pub(crate) fn subgraph(&self, domains: &str) -> Self {
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let subgraph = domains.parse().expect("domains");
        Self::with(self.store.clone(), &self.url, POLL, &Options { limits, subgraph, ..Options::default() })
    }

    /// This application, whose SDL says who is refused what.
    pub(crate) fn with_authorization_directives(&self) -> Self {
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let options = Options { limits, authorization_directives: true, ..Options::default() };
        Self::with(self.store.clone(), &self.url, POLL, &options)
    }

    /// This application, where answers have so many bytes at most, and all long ones together so much memory.
    pub(crate) fn that_answers_at_most(&self, answer_bytes: usize, answer_memory: usize) -> Self {
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let options = Options { limits, answer_bytes, answer_memory, ..Options::default() };
        Self::with(self.store.clone(), &self.url, POLL, &options)
    }

    /// This application with the limits that a server has by default.
    pub(crate) fn with_default_limits(&self) -> Self {
        Self::with(self.store.clone(), &self.url, POLL, &Options::default())
    }

    /// This application, where requests with an idempotency key are known for so long.
    pub(crate) fn that_keeps_keys(&self, keyed_requests: Lifetimes) -> Self {
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let options = Options { limits, keyed_requests, ..Options::default() };
        Self::with(self.store.clone(), &self.url, POLL, &options)
    }

    /// This application, whose webhooks may be sent there.
    pub(crate) fn that_calls(&self, webhook_targets: TargetRules) -> Self {
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let options = Options { limits, webhook_targets, ..Options::default() };
        Self::with(self.store.clone(), &self.url, POLL, &options)
    }

    /// This application, where every operation costs too much.
    pub(crate) fn that_only_tells_costs(&self) -> Self {
        let limits = Limits { cost: 0, ..Limits::default() };
        Self::with(self.store.clone(), &self.url, POLL, &Options { limits, ..Options::default() })
    }

    /// This application, and the metrics of its graph.
    pub(crate) fn with_metrics(mut self) -> (Self, Registry) {
        let mut registry = Registry::default();
        let access = Some(self.graph.access().clone());
        let limits = Limits { cost: u64::MAX, ..Limits::default() };
        let options = Options { development: true, access, limits, ..Options::default() };
        self.graph = Graph::new(self.store.clone(), options, &mut registry);
        (self, registry)
    }

    fn with(store: Store, url: &str, poll: Duration, options: &Options) -> Self {
        let cost = password::Cost { memory_kib: 64, passes: 1 };
        let access =
            AccessOptions { secret: Secret::new("of the tests"), cost, poll, ..AccessOptions::default() };
        let access = Some(Access::new(store.clone(), access));
        let options = Options { development: true, access, ..options.clone() };
        let graph = Graph::new(store.clone(), options, &mut Registry::default());
        Self { graph, store, url: url.to_owned() }
    }

    /// A graph over a store on the same database.
    pub(crate) fn over_store(&self, store: Store) -> Self {
        Self::of(store, &self.url)
    }

    /// A graph over a store on the same database that hears only by news what others revoke.
    pub(crate) fn that_never_polls(&self, store: Store) -> Self {
        Self::polling(store, &self.url, Duration::from_hours(1))
    }

    /// Another instance's store on the same database.
    pub(crate) async fn another_store(&self) -> Store {
        db::open(&self.url).await
    }

    /// Another graph over the same database, with a cache in this process.
    pub(crate) async fn with_cache(&self) -> Self {
        let store = self.another_store().await;
        Self::of(store.with_cache(&CacheOptions::default(), None, &mut Registry::default()), &self.url)
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.store.connection().get_database_backend() == DbBackend::Postgres
    }

    /// The statements that each mutation ends with.
    pub(crate) fn log_statements(&self) -> &'static [&'static str] {
        if self.is_postgres() {
            &["activity.insert_with_event"]
        } else {
            &["activity.insert", "events.insert"]
        }
    }

    /// Runs SQL beside the graph.
    pub(crate) async fn sql(&self, sql: &str) {
        let ran = self.store.connection().execute_unprepared(sql).await;
        ran.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from {table}");
        let statement = sea_orm::Statement::from_string(self.store.connection().get_database_backend(), sql);
        let row = self.store.connection().query_one_raw(statement).await.expect("it can be counted");
        row.expect("there is a count").try_get_by_index(0).expect("it is a number")
    }

    /// The demo account of this role.
    pub(crate) fn account(role: Role) -> UserId {
        let accounts = seed::demo_accounts();
        accounts.iter().find(|account| account.role == role).expect("there is one of each role").id
    }

    pub(crate) fn as_admin(&self) -> Client<'_> {
        self.as_role(Role::Admin)
    }

    /// The demo account of this role.
    pub(crate) fn as_role(&self, role: Role) -> Client<'_> {
        self.as_user(Self::account(role), role)
    }

    pub(crate) fn as_user(&self, id: UserId, role: Role) -> Client<'_> {
        self.asked_by(Viewer::User { id, role, session: None })
    }

    pub(crate) fn in_session(&self, id: UserId, role: Role, session: SessionId) -> Client<'_> {
        self.asked_by(Viewer::User { id, role, session: Some(session) })
    }

    pub(crate) fn anonymous(&self) -> Client<'_> {
        self.asked_by(Viewer::Anonymous)
    }

    pub(crate) fn service(&self) -> Client<'_> {
        self.asked_by(Viewer::Service)
    }

    /// Whom an access token stands for, as the server asks.
    pub(crate) fn bearing(&self, token: &str) -> Result<Client<'_>, InvalidToken> {
        self.graph.access().verify(token).map(|bearer| self.asked_by(bearer.viewer))
    }

    fn asked_by(&self, viewer: Viewer) -> Client<'_> {
        let (caller, taken, on_error, key) = (Caller::default(), None, None, None);
        Client { app: self, viewer, caller, explains: true, trace: false, taken, on_error, key }
    }
}

/// Somebody who asks the graph.
pub(crate) struct Client<'a> {
    app: &'a TestApp,
    viewer: Viewer,
    caller: Caller,
    explains: bool,
    trace: bool,
    taken: Option<Taken>,
    on_error: Option<OnError>,
    key: Option<String>,
}

/// One SQL statement of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub(crate) name: String,
    pub(crate) text: String,
    /// The standby that it ran on.
    pub(crate) server: Option<String>,
}

/// An answer, without `extensions.explain`.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The bytes.
    pub(crate) body: String,
    pub(crate) data: Value,
    pub(crate) errors: Vec<Value>,
    pub(crate) codes: Vec<String>,
    /// False for request errors: the answer has no `data` entry.
    pub(crate) executed: bool,
    /// The statements that ran for it.
    pub(crate) sql: Vec<Statement>,
    /// The rest of `extensions`.
    pub(crate) extensions: Value,
}

impl Client<'_> {
    /// This client, asking from this address.
    pub(crate) fn from(mut self, address: &str) -> Self {
        self.caller.address = Some(address.parse().expect("an address"));
        self
    }

    /// This client, calling itself so.
    pub(crate) fn with_agent(mut self, agent: &str) -> Self {
        self.caller.user_agent = Some(agent.into());
        self
    }

    /// This client, without asking for explanations: as clients ask in production.
    pub(crate) fn plain(mut self) -> Self {
        self.explains = false;
        self
    }

    /// What all requests of an array share is shared from now on.
    pub(crate) fn in_one_array(mut self) -> Self {
        self.taken = Some(Taken::default());
        self
    }

    /// This client, saying what a field that fails does to the rest.
    pub(crate) fn on_error(mut self, on_error: OnError) -> Self {
        self.on_error = Some(on_error);
        self
    }

    /// This client, sending everything with this idempotency key.
    pub(crate) fn keyed(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    /// This client, asking for a trace too.
    pub(crate) fn traced(mut self) -> Self {
        self.trace = true;
        self
    }

    /// Asks.
    pub(crate) async fn run(&self, query: &str, variables: Value) -> Reply {
        self.run_named(query, None, variables).await
    }

    /// Asks without variables, and expects no error.
    pub(crate) async fn ask(&self, query: &str) -> Value {
        self.run(query, json!({})).await.expect_data(query)
    }

    /// Asks for one operation of a document.
    pub(crate) async fn run_named(&self, query: &str, name: Option<&str>, variables: Value) -> Reply {
        let reply = self.app.graph.execute(self.viewer.clone(), self.request(query, name, variables)).await;
        Reply::of(reply)
    }

    /// Asks with several sets of variables; the answers come in their order. What is refused as a whole has one
    /// answer.
    pub(crate) async fn run_sets(&self, query: &str, sets: &[Value]) -> Result<Vec<Reply>, Box<Reply>> {
        let request = self.request(query, None, json!({}));
        let document = self.app.graph.prepare_for(query, &request.caller);
        let document = document.map_err(|refused| Box::new(Reply::of(*refused)))?;
        let sets = sets.iter().cloned().map(Variables::from_json).collect();
        let mut replies = Vec::new();
        let ran = self.app.graph.execute_sets(self.viewer.clone(), document, (request, sets), |reply| {
            let place = format!(",\"variableIndex\":{}}}", replies.len());
            let reply = Reply::of(reply);
            assert!(reply.body.ends_with(&place) || !reply.sql.is_empty(), "in order: {}", reply.body);
            replies.push(reply);
        });
        ran.await.map_err(|refused| Box::new(Reply::of(*refused)))?;
        Ok(replies)
    }

    /// Subscribes; what is refused is the answer.
    pub(crate) async fn subscribe(&self, query: &str, variables: Value) -> Result<Events, Reply> {
        let request = Request { streams: true, ..self.request(query, None, variables) };
        match self.app.graph.open(self.viewer.clone(), request).await {
            Opened::Events(events) => Ok(events),
            Opened::Reply(reply) => Err(Reply::of(*reply)),
        }
    }

    /// Begins a live query, whose changes are told as patches.
    pub(crate) async fn live_with_patches(&self, query: &str, variables: Value) -> Events {
        let asked = self.request(query, None, variables);
        let request = Request { streams: true, json_patch: true, ..asked };
        match self.app.graph.open(self.viewer.clone(), request).await {
            Opened::Events(events) => events,
            Opened::Reply(reply) => panic!("{}", Reply::of(*reply).body),
        }
    }

    /// Subscribes after the event that a token stands for.
    pub(crate) async fn resume(&self, query: &str, variables: Value, token: &str) -> Result<Events, Reply> {
        let request =
            Request { resume_after: Some(token.to_owned()), ..self.request(query, None, variables) };
        match self.app.graph.open(self.viewer.clone(), request).await {
            Opened::Events(events) => Ok(events),
            Opened::Reply(reply) => Err(Reply::of(*reply)),
        }
    }

    /// Asks, and for a token with which a subscription goes on after the answer.
    pub(crate) async fn run_with_token(&self, query: &str, variables: Value) -> Reply {
        let request = Request { resume_token: true, ..self.request(query, None, variables) };
        Reply::of(self.app.graph.execute(self.viewer.clone(), request).await)
    }

    /// Asks as a gateway does that keeps answers: what they depend on is told.
    pub(crate) async fn as_gateway_that_keeps(&self, query: &str, variables: Value) -> schema::Reply {
        let caller = Caller { is_gateway: true, ..self.caller.clone() };
        let asked = self.request(query, None, variables);
        let request = Request { cache_tags: true, explain: false, caller, ..asked };
        self.app.graph.execute(self.viewer.clone(), request).await
    }

    fn request(&self, query: &str, name: Option<&str>, variables: Value) -> Request {
        Request {
            query: query.to_owned(),
            operation_name: name.map(str::to_owned),
            variables: serde_json::from_value(variables).expect("variables are an object"),
            explain: self.explains,
            on_error: self.on_error,
            trace: self.trace,
            caller: self.caller.clone(),
            taken: self.taken.clone().unwrap_or_default(),
            idempotency_key: self.key.as_deref().map(Into::into),
            ..Request::default()
        }
    }
}

impl Reply {
    pub(crate) fn of(reply: schema::Reply) -> Self {
        let body = String::from_utf8(reply.body.into_vec()).expect("the answer is UTF-8");
        let mut answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
        let explained = answer["extensions"]["explain"]["sql"].take();
        let sql: Vec<Statement> = explained.as_array().into_iter().flatten().map(statement).collect();
        let is_counted = explained.is_null() || sql.len() == reply.statements as usize;
        assert!(is_counted, "the reply counts what explain lists, where it does: {body}");
        let errors = answer["errors"].as_array().cloned().unwrap_or_default();
        let code = |error: &Value| error["extensions"]["code"].as_str().expect("coded").to_owned();
        let codes: Vec<String> = errors.iter().map(code).collect();
        assert_eq!(codes, reply.codes, "the reply's codes are the answer's: {body}");
        assert_eq!(answer.get("data").is_some(), reply.executed, "data is there when executed: {body}");
        assert_eq!(answer["variableIndex"].is_u64(), reply.set.is_some(), "{body}");
        let explained = body.rfind(",\"extensions\":{\"explain\":");
        let body = explained.map_or(body.clone(), |end| format!("{}}}", &body[..end]));
        let (data, extensions) = (answer["data"].take(), answer["extensions"].take());
        Reply { body, data, errors, codes, executed: reply.executed, sql, extensions }
    }
}

fn statement(executed: &Value) -> Statement {
    let text = |name: &str| executed[name].as_str().unwrap_or_default().to_owned();
    let server = executed["server"].as_str().map(ToOwned::to_owned);
    Statement { name: text("name"), text: text("text"), server }
}

impl Reply {
    /// The data of an answer without errors.
    #[track_caller]
    pub(crate) fn expect_data(self, about: &str) -> Value {
        assert!(self.errors.is_empty(), "{about}\n{}", self.body);
        self.data
    }

    /// The names of its statements.
    pub(crate) fn statements(&self) -> Vec<&str> {
        self.sql.iter().map(|statement| statement.name.as_str()).collect()
    }
}
