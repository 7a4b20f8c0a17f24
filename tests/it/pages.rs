//! Every connection of the schema, found by introspection, walked by pages of three in every order that it has:
//! forwards and backwards, in peace and while rows come and go beside those that stay. A new connection is walked
//! without a word here.

use std::collections::{BTreeMap, BTreeSet};

use entities::id;
use serde_json::{Value, json};

use crate::harness::{Client, Columns, SchemaTypes, TestApp, introspect, text};

/// One list: a connection in one of its orders, on the parent that has the most rows.
struct List {
    /// `User.sessions`, with its order.
    name: String,
    /// `Query`, or the parent's type.
    on: String,
    field: String,
    /// `orderBy: …`, or nothing.
    order: String,
    parent: Option<String>,
    /// What the connection is of.
    of: String,
}

/// One page.
struct Page {
    ids: Vec<String>,
    cursors: Vec<String>,
    info: Value,
    total: usize,
}

impl List {
    async fn page(&self, client: &Client<'_>, arguments: &str) -> Page {
        let connection = format!(
            "{}({arguments} {}) {{ totalCount nodes {{ id }} edges {{ cursor node {{ id }} }}
             pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }}",
            self.field, self.order
        );
        let query = match &self.parent {
            Some(id) => format!("{{ node(id: {id:?}) {{ ... on {} {{ {connection} }} }} }}", self.on),
            None => format!("{{ {connection} }}"),
        };
        let data = client.ask(&query).await;
        let list = if self.parent.is_some() { &data["node"][&self.field] } else { &data[&self.field] };
        let edges = list["edges"].as_array().expect("edges");
        let ids: Vec<String> = edges.iter().map(|edge| text(&edge["node"]["id"])).collect();
        let nodes: Vec<String> =
            list["nodes"].as_array().expect("nodes").iter().map(|node| text(&node["id"])).collect();
        assert_eq!(ids, nodes, "{}: `edges` and `nodes` are the same rows", self.name);
        let cursors: Vec<String> = edges.iter().map(|edge| text(&edge["cursor"])).collect();
        let info = list["pageInfo"].clone();
        assert_eq!(info["startCursor"].as_str(), cursors.first().map(String::as_str), "{}", self.name);
        assert_eq!(info["endCursor"].as_str(), cursors.last().map(String::as_str), "{}", self.name);
        let total = usize::try_from(list["totalCount"].as_u64().expect("a count")).expect("it fits");
        Page { ids, cursors, info, total }
    }

    /// All rows, by the largest pages.
    async fn all(&self, client: &Client<'_>) -> Vec<String> {
        let largest = if self.of == "LocationConnection" { 1_000 } else { 100 };
        let mut page = self.page(client, &format!("first: {largest}")).await;
        let (mut ids, total) = (page.ids, page.total);
        while page.info["hasNextPage"] == true {
            let after = page.cursors.last().expect("a page that has a next one has rows").clone();
            page = self.page(client, &format!("first: {largest}, after: {after:?}")).await;
            ids.extend(page.ids);
        }
        assert_eq!(ids.len(), total, "{}: totalCount", self.name);
        ids
    }

    /// The table that its rows are in.
    fn table(&self) -> &'static str {
        if self.field == "latestLocations" {
            return "user_last_locations";
        }
        let type_name = self.of.strip_suffix("Connection").expect("a connection");
        TestApp::table_of(type_name).0
    }
}

/// Every connection in every order.
async fn lists(app: &TestApp) -> Vec<List> {
    let shape = introspect(app).await;
    let mut lists = Vec::new();
    for (on, of) in &shape {
        for (field, found) in of.fields.iter().filter(|(_, field)| field.of.ends_with("Connection")) {
            let parent = if on == "Query" { None } else { Some(busiest(app, on, field).await) };
            let orders =
                found.arguments.get("orderBy").map(|order| orders(&shape, order)).unwrap_or_default();
            for order in std::iter::once(String::new()).chain(orders) {
                let name = format!("{on}.{field} {order}");
                let (on, field, of) = (on.clone(), field.clone(), found.of.clone());
                lists.push(List { name, on, field, order, parent: parent.clone(), of });
            }
        }
    }
    assert!(lists.len() >= 12, "{}", lists.len());
    lists
}

fn orders(shape: &SchemaTypes, of: &str) -> Vec<String> {
    let fields = &shape[&shape[of].input_fields["field"]].values;
    let order = |field: &String, way| format!("orderBy: {{ field: {field}, direction: {way} }}");
    fields.iter().flat_map(|field| ["ASC", "DESC"].map(|way| order(field, way))).collect()
}

/// The object of this type that has the most rows in this list.
async fn busiest(app: &TestApp, on: &str, field: &str) -> String {
    let query = format!(
        "query($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on {on} {{ id {field} {{ totalCount }} }} }} }}"
    );
    let mut found = Vec::new();
    for ids in app.ids_of(on).await.chunks(100) {
        let data = app.as_admin().run(&query, json!({ "ids": ids })).await.expect_data(&query);
        let objects = data["nodes"].as_array().expect("a list").clone();
        found.extend(objects.iter().map(|whole| (whole[field]["totalCount"].as_u64(), text(&whole["id"]))));
    }
    let (rows, id) = found.into_iter().max().expect("there is a parent");
    assert!(rows > Some(3), "{on}.{field} has {rows:?} rows at most: too few to turn a page");
    id
}

#[tokio::test]
async fn every_connection_gives_each_row_once_forwards_and_backwards() {
    for app in TestApp::both().await {
        let client = app.as_admin();
        for list in lists(&app).await {
            let all = list.all(&client).await;
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{}: no row twice", list.name);
            forwards(&list, &client, &all).await;
            backwards(&list, &client, &all).await;
            between(&list, &client, &all).await;
        }
    }
}

async fn forwards(list: &List, client: &Client<'_>, all: &[String]) {
    let (mut ids, mut arguments) = (Vec::new(), "first: 3".to_owned());
    loop {
        let page = list.page(client, &arguments).await;
        assert_eq!(page.info["hasPreviousPage"], !ids.is_empty(), "{} {arguments}", list.name);
        ids.extend(page.ids);
        assert_eq!(page.total, all.len(), "{}: the count is the same on each page", list.name);
        assert_eq!(page.info["hasNextPage"], ids.len() < all.len(), "{} {arguments}", list.name);
        if page.info["hasNextPage"] == false {
            break;
        }
        arguments = format!("first: 3, after: {:?}", page.cursors[2]);
    }
    assert_eq!(ids, all, "{} forwards", list.name);
}

async fn backwards(list: &List, client: &Client<'_>, all: &[String]) {
    let (mut ids, mut arguments) = (Vec::new(), "last: 3".to_owned());
    loop {
        let page = list.page(client, &arguments).await;
        assert_eq!(page.info["hasNextPage"], !ids.is_empty(), "{} {arguments}", list.name);
        ids.splice(..0, page.ids);
        assert_eq!(page.info["hasPreviousPage"], ids.len() < all.len(), "{} {arguments}", list.name);
        if page.info["hasPreviousPage"] == false {
            break;
        }
        arguments = format!("last: 3, before: {:?}", page.cursors[0]);
    }
    assert_eq!(ids, all, "{} backwards", list.name);
}

/// Both ends at once, the other side of a cursor, and beyond the end.
async fn between(list: &List, client: &Client<'_>, all: &[String]) {
    let cursors = list.page(client, "first: 100").await.cursors;
    let (first, last) = (&cursors[0], &cursors[cursors.len().min(6) - 1]);
    let inner = &all[1..cursors.len().min(6) - 1];
    for way in ["first", "last"] {
        let page = list.page(client, &format!("{way}: 10, after: {first:?}, before: {last:?}")).await;
        assert_eq!(page.ids, inner, "{} between two cursors", list.name);
    }
    let page = list.page(client, &format!("first: 2, before: {last:?}")).await;
    assert_eq!(page.ids, all[..2], "{} the first before a cursor", list.name);
    let page = list.page(client, &format!("last: 2, after: {first:?}")).await;
    assert_eq!(page.ids, all[all.len() - 2..], "{} the last after a cursor", list.name);
    let page = list.page(client, &format!("first: 3, before: {first:?}")).await;
    assert!(page.ids.is_empty() && page.info["hasPreviousPage"] == false, "{} before the first", list.name);
    let end = list.page(client, "last: 1").await;
    assert_eq!(end.ids, all[all.len() - 1..], "{}", list.name);
    let page = list.page(client, &format!("first: 3, after: {:?}", end.cursors[0])).await;
    assert!(page.ids.is_empty() && page.info["hasNextPage"] == false, "{} after the last", list.name);
}

/// Copies of rows beside the ones that stay, and what becomes of them.
struct Visitors<'a> {
    app: &'a TestApp,
    table: &'static str,
    columns: &'a Columns,
    here: Vec<String>,
    made: usize,
}

impl Visitors<'_> {
    fn literal(&self, id: &str) -> String {
        if self.app.is_postgres() { format!("'{id}'::uuid") } else { format!("x'{}'", id.replace('-', "")) }
    }

    /// A copy at the same moment, under an id that is smaller, greater or random: just before or just behind.
    async fn copy(&mut self, id_of_copied: &str) {
        self.made += 1;
        let new = match self.made % 3 {
            0 => format!("00000000-0000-7000-8000-{:012x}", self.made),
            1 => format!("ffffffff-ffff-7fff-bfff-{:012x}", self.made),
            _ => id::new().to_string(),
        };
        // Before the first, or after the last.
        let number = if self.made.is_multiple_of(2) { self.made as i64 + 100 } else { -(self.made as i64) };
        let id = self.literal(&new);
        let own = self.columns.unique.iter().map(|column| {
            let value = match column.kind.as_str() {
                "blob" => id.clone(),
                "integer" => number.to_string(),
                // Right beside the one that is copied.
                _ => format!("{} || '{new}'", column.name),
            };
            (column.name.clone(), value)
        });
        let copied = self.columns.copied.iter().map(|name| (name.clone(), name.clone()));
        let (names, values): (Vec<_>, Vec<_>) =
            std::iter::once(("id".to_owned(), id.clone())).chain(copied).chain(own).unzip();
        let insert = format!(
            "insert into {table} ({}) select {} from {table} where id = {}",
            names.join(", "),
            values.join(", "),
            self.literal(id_of_copied),
            table = self.table,
        );
        self.app.sql(&insert).await;
        self.here.push(new);
    }

    async fn leave(&mut self) {
        for id in std::mem::take(&mut self.here) {
            let gone = format!("delete from {} where id = {}", self.table, self.literal(&id));
            self.app.sql(&gone).await;
        }
    }
}

#[tokio::test]
async fn rows_that_come_and_go_neither_repeat_nor_hide_the_others() {
    let apps = TestApp::both_own().await;
    let mut columns = BTreeMap::new();
    for list in lists(&apps[0]).await {
        columns.insert(list.table(), apps[0].columns_of(list.table()).await);
    }
    for app in apps {
        let client = app.as_admin();
        for list in lists(&app).await {
            let all = list.all(&client).await;
            // The latest positions are of accounts; the copies are of none, and are not asked for theirs.
            for way in ["first", "last"] {
                let (table, columns) = (list.table(), &columns[list.table()]);
                let mut visitors = Visitors { app: &app, table, columns, here: Vec::new(), made: 0 };
                let seen = walk(&list, &client, &all, way, &mut visitors).await;
                visitors.leave().await;
                let stayed: Vec<&String> = seen.iter().filter(|id| all.contains(id)).collect();
                let mut wanted: Vec<&String> = all.iter().collect();
                if way == "last" {
                    wanted.reverse();
                }
                assert_eq!(stayed, wanted, "{} {way}", list.name);
                assert_eq!(
                    seen.iter().collect::<BTreeSet<_>>().len(),
                    seen.len(),
                    "{} {way}: twice",
                    list.name
                );
                assert!(seen.len() > all.len(), "{} {way}: copies were seen as well", list.name);
            }
        }
    }
}

/// All ids in the order in which they were met. Between two pages all copies go, the one under the cursor too, and
/// new ones come: beside the row at the cursor, at both ends, and in the middle.
async fn walk(
    list: &List,
    client: &Client<'_>,
    all: &[String],
    way: &str,
    visitors: &mut Visitors<'_>,
) -> Vec<String> {
    let (mut seen, mut cursor) = (Vec::<String>::new(), String::new());
    for turn in 0.. {
        assert!(turn < 10 * all.len(), "{} {way}: no end", list.name);
        let met = seen.iter().rev().find(|id| all.contains(id)).unwrap_or(&all[0]).clone();
        visitors.leave().await;
        // The rest in peace after a while: copies that come in the way each time make a long way.
        if turn < 12 {
            for id in [&met, &all[0], &all[all.len() - 1], &all[all.len() / 2], &met] {
                visitors.copy(id).await;
            }
        }
        let page = list.page(client, &format!("{way}: 3 {cursor}")).await;
        let (mut ids, more, at, name) = if way == "first" {
            (page.ids, &page.info["hasNextPage"], page.cursors.last(), "after")
        } else {
            (page.ids, &page.info["hasPreviousPage"], page.cursors.first(), "before")
        };
        if way == "last" {
            ids.reverse();
        }
        seen.extend(ids);
        if *more == false {
            break;
        }
        cursor = format!("{name}: {:?}", at.expect("a page that has a next one has rows"));
    }
    seen
}

#[tokio::test]
async fn a_filter_holds_on_every_page() {
    let query = "query($after: String) { users(first: 2, after: $after, filter: { roles: [COLLECTOR] }) {
        totalCount nodes { id role } pageInfo { hasNextPage endCursor } } }";
    for app in TestApp::both().await {
        let (mut after, mut ids) = (Value::Null, BTreeSet::new());
        let total = loop {
            let data = app.as_admin().run(query, json!({ "after": after })).await.expect_data("users");
            for user in data["users"]["nodes"].as_array().expect("nodes") {
                assert_eq!(user["role"], "COLLECTOR");
                assert!(ids.insert(text(&user["id"])));
            }
            after = data["users"]["pageInfo"]["endCursor"].clone();
            if data["users"]["pageInfo"]["hasNextPage"] == false {
                break data["users"]["totalCount"].as_u64();
            }
        };
        assert_eq!(Some(ids.len() as u64), total);
    }
}
