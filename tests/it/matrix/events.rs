//! Subscriptions: an event comes to everybody who sees its row, with what they see of it, and to nobody else.

use std::{collections::BTreeMap, time::Duration};

use entities::{
    events::ChangeEvent,
    id::{FormId, LocationId, SessionId, SubmissionId, UserId},
};
use futures_util::StreamExt as _;
use schema::Event;
use serde_json::{Value, json};

use super::{Tally, Who, World, everything, ids_only};
use crate::harness::{Reply, text};

const EVENTS: [(&str, &str); 3] =
    [("submissionChanged", "Submission"), ("locationUpdated", "Location"), ("sessionEnded", "Session")];

/// Is this subscription followed here?
pub(super) fn follows(field: &str) -> bool {
    EVENTS.iter().any(|(known, _)| *known == field)
}

/// Subscribes to everything, and looks at what comes.
pub(super) async fn follow(who: Who, world: &World, tally: &mut Tally) {
    for (field, type_name) in EVENTS {
        for (arguments, objects) in told(type_name, world) {
            hear(who, world, (field, type_name), &arguments, objects, tally).await;
        }
    }
}

/// The objects that are told of, by the arguments of a subscription to them: one for each account.
fn told<'a>(type_name: &str, world: &'a World) -> Vec<(String, Vec<&'a Value>)> {
    let by_user = |objects: Vec<&'a Value>| -> Vec<&'a Value> {
        let by_user: BTreeMap<String, &Value> =
            objects.into_iter().map(|whole| (whole["user"]["id"].to_string(), whole)).collect();
        by_user.into_values().collect()
    };
    match type_name {
        "Submission" => {
            let mut forms: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
            for whole in world.of_type("Submission") {
                forms.entry(whole["form"]["id"].to_string()).or_default().push(whole);
            }
            forms.into_iter().map(|(form, objects)| (format!("(formId: {form})"), by_user(objects))).collect()
        }
        "Location" => {
            let newest: Vec<String> = world
                .of_type("User")
                .filter_map(|user| user["lastLocation"]["id"].as_str().map(str::to_owned))
                .collect();
            let is_newest = |whole: &&Value| newest.contains(&text(&whole["id"]));
            vec![(String::new(), world.of_type("Location").filter(is_newest).collect())]
        }
        _ => vec![(String::new(), by_user(world.of_type("Session").collect()))],
    }
}

async fn hear(
    who: Who,
    world: &World,
    (field, type_name): (&str, &str),
    arguments: &str,
    mut objects: Vec<&Value>,
    tally: &mut Tally,
) {
    let query = format!("subscription {{ {field}{arguments} {{ {} }} }}", everything(type_name, ids_only));
    let mut events = match who.client(&world.app).subscribe(&query, json!({})).await {
        Ok(events) => events,
        Err(reply) => {
            let refused = matches!(who, Who::Nobody) && reply.codes == ["UNAUTHENTICATED"];
            return tally.expect(refused, || format!("{who:?} {field}: {}", reply.body));
        }
    };
    // Those that are seen come last: what comes before them was not to come.
    objects.sort_by_key(|whole| who.sees(type_name, whole));
    let changes: Vec<ChangeEvent> = objects.iter().map(|whole| change(type_name, whole)).collect();
    world.app.store.events().publish(changes.into());
    let seen: Vec<&&Value> = objects.iter().filter(|whole| who.sees(type_name, whole)).collect();
    for whole in &seen {
        let event = tokio::time::timeout(Duration::from_secs(30), events.next()).await;
        let Ok(Some(Event::Reply(event))) = event else {
            return tally.expect(false, || format!("{who:?} {field}: nothing of {}", whole["id"]));
        };
        let data = Reply::of(*event).expect_data(&query);
        tally.expect(data[field]["id"] == whole["id"], || format!("{who:?} {field}: {}", data[field]["id"]));
        tally.check(who, field, type_name, whole, &data[field]);
    }
    if seen.is_empty() {
        let nothing = tokio::time::timeout(Duration::from_millis(200), events.next()).await.is_err();
        tally.expect(nothing, || format!("{who:?} {field}{arguments}: something comes"));
    }
}

fn change(type_name: &str, whole: &Value) -> ChangeEvent {
    let id = text(&whole["id"]);
    let user = whole["user"]["id"].as_str().and_then(UserId::parse);
    match type_name {
        "Submission" => {
            let form = FormId::parse(&text(&whole["form"]["id"])).expect("an id");
            ChangeEvent::Submission { id: SubmissionId::parse(&id).expect("an id"), form, user }
        }
        "Location" => ChangeEvent::LastLocation {
            id: LocationId::parse(&id).expect("an id"),
            user: user.expect("somebody's"),
        },
        _ => ChangeEvent::SessionEnded {
            id: SessionId::parse(&id).expect("an id"),
            user: user.expect("somebody's"),
        },
    }
}
