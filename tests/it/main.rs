use schema::{Graph, Options, Request, Viewer};
#[tokio::test]
async fn smoke() {
    let mut registry = prometheus_client::registry::Registry::default();
    let store = entities::Store::connect(
        &entities::DatabaseConfig {
            url: "sqlite:/tmp/smoke.db".into(),
            max_connections: 4,
            acquire_timeout: std::time::Duration::from_secs(5),
        },
        &mut registry,
    )
    .await
    .unwrap();
    migration::up(store.connection()).await.unwrap();
    if entities::seed::is_empty(&store).await.unwrap() {
        entities::seed::run(&store, entities::seed::Size::S, &mut |_| {}).await.unwrap();
    }
    let graph = Graph::new(store, Options { development: true, ..Options::default() }, &mut registry);
    std::fs::write("/tmp/sdl.graphql", graph.sdl()).unwrap();
    for q in [
        "{users(first:2){totalCount pageInfo{hasNextPage endCursor} nodes{id email displayName sessions(first:2){nodes{id isActive endReason user{id}}} forms(first:1){totalCount nodes{title submissionCount draft currentVersion{number}}}}}}",
        "{__schema{queryType{name}} users(first:1){edges{cursor node{id ...on User{email}}}}}",
        "{latestLocations(first:2, area:{circle:{latitude:10.8,longitude:106.7,radius:50000}}){nodes{latitude user{displayName}}} a:activityLogs(first:3){nodes{actionType subject{__typename id}}}}",
        "{users(first:101){nodes{id}}}",
        "{nope}",
        "{user(id:\"x\"){id}}",
        "query($id:ID!){user(id:$id){id}}",
        "{users(after:\"abc\"){nodes{id}}}",
        "query($r:[_Any!]!){_entities(representations:$r){...on User{id displayName lastLocation{timestamp}}}}",
    ] {
        let mut r = Request { query: q.into(), explain: true, ..Request::default() };
        if q.contains("$r") {
            r.variables = async_graphql::Variables::from_json(
                serde_json::json!({"r":[{"__typename":"User","email":"admin@example.com"},{"__typename":"Nope"},{"__typename":"User","id":"00000000-0000-0000-0000-000000000000"}]}),
            );
        }
        let reply = graph.execute(Viewer::Service, r).await;
        println!(
            "{q}\n => {} {:?} {}\n",
            reply.statements,
            reply.codes,
            String::from_utf8(reply.body).unwrap()
        );
    }
}
