//! Cursors and the lists that they belong to. Not here: pages (`pages`), cursors that are refused (`limits`).

use entities::Role;

use crate::harness::{TestApp, text};

/// What means the same is the same list, however it is written: nothing, null and an empty filter; the order that a list
/// has anyway; sets in any order, with repetitions, and as one value; ids and times in other spellings; texts in other
/// cases and normal forms.
#[tokio::test]
async fn a_cursor_holds_for_the_same_list_in_other_words() {
    const USER: &str = "0190aBcd-0000-7000-8000-00000000000F";
    let lower = USER.to_lowercase();
    let same: [&[&str]; 9] = [
        &[
            "users(first: 1",
            "users(first: 2, filter: {}",
            "users(last: 1, filter: null",
            "users(first: 1, filter: { search: null, roles: null, createdAt: {} }",
            "users(first: 1, filter: { search: \"\", lastLogin: { from: null } }",
            "users(first: 1, orderBy: { direction: DESC, field: CREATED_AT }",
            "users(first: 1, orderBy: null",
        ],
        &[
            "users(first: 1, filter: { roles: [ADMIN, COLLECTOR] }",
            "users(first: 1, filter: { roles: [COLLECTOR, ADMIN], search: null }",
            "users(first: 1, filter: { roles: [COLLECTOR, ADMIN, ADMIN, COLLECTOR] }",
        ],
        &["users(first: 1, filter: { roles: ADMIN }", "users(first: 1, filter: { roles: [ADMIN] }"],
        &["users(first: 1, filter: { search: \"A\" }", "users(first: 1, filter: { search: \"a\" }"],
        &[
            "users(first: 1, filter: { createdAt: { from: \"2020-01-01T00:00:00Z\" } }",
            "users(first: 1, filter: { createdAt: { to: null, from: \"2020-01-01T07:00:00.000+07:00\" } }",
        ],
        &[
            "forms(first: 1, filter: { statuses: [OPEN, CLOSED] }",
            "forms(first: 1, filter: { statuses: [CLOSED, OPEN, CLOSED] }, orderBy: { field: CREATED_AT, direction: DESC }",
        ],
        &[
            "forms(first: 1, filter: { ownerIds: [$A, $B] }",
            "forms(first: 1, filter: { ownerIds: [$B, $a, $A] }",
        ],
        &[
            "latestLocations(first: 1, area: { box: { west: -170, south: -80, east: 170, north: 80 } }",
            "latestLocations(first: 1, area: { box: { north: 80.0, east: 170, south: -80, west: -170 } }, userIds: null",
        ],
        &[
            "activityLogs(first: 1, filter: { actionTypes: [\"session.create\", \"form.publish\"] }",
            "activityLogs(first: 1, filter: { actionTypes: [\"form.publish\", \"session.create\"] }",
        ],
    ];
    for app in TestApp::both().await {
        let (admin, other) = (app.as_admin(), TestApp::account(Role::Admin).to_string());
        let names = |list: &str| {
            let list = list.replace("$A", &format!("{USER:?}")).replace("$a", &format!("{lower:?}"));
            list.replace("$B", &format!("{other:?}"))
        };
        for spellings in same {
            let mut cursor = None;
            for list in spellings.iter().map(|list| names(list)) {
                let (field, _) = list.split_once('(').expect("it has arguments");
                let query = format!("{{ {list}) {{ pageInfo {{ startCursor }} }} }}");
                let data = admin.ask(&query).await;
                let first = data[field]["pageInfo"]["startCursor"].as_str().map(str::to_owned);
                let cursor = cursor.get_or_insert_with(|| first.unwrap_or_else(|| panic!("{list} has rows")));
                let side = if list.contains("last:") { "before" } else { "after" };
                admin.ask(&format!("{{ {list}, {side}: {cursor:?}) {{ totalCount }} }}")).await;
            }
        }
        let sessions = |arguments: &str| {
            format!("{{ me {{ sessions(first: 1{arguments}) {{ pageInfo {{ endCursor }} }} }} }}")
        };
        let data = admin.ask(&sessions("")).await;
        let cursor = text(&data["me"]["sessions"]["pageInfo"]["endCursor"]);
        for arguments in [", activeOnly: false", ", activeOnly: null"] {
            admin.ask(&sessions(&format!("{arguments}, after: {cursor:?}"))).await;
        }
    }
}
