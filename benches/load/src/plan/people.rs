//! Who asks: accounts of the seed that are given a password and sign in, each from an address of its own. Not
//! here: what they ask.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use uuid::Uuid;

use super::mix;
use crate::{client::Connection, database::Database, overload::connect};

/// The first loopback address that sign-ins come from, and from one to the next: a server bounds how often
/// those of one network (/24) may try.
const SIGN_INS_FROM: u32 = 1 << 16;
const SIGN_INS_APART: u32 = 1 << 8;

/// Somebody who has signed in.
pub(super) struct Person {
    pub(super) email: String,
    pub(super) role: Role,
    tokens: Mutex<Tokens>,
}

/// What a person may do decides what they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Sees everything.
    Manager,
    /// Sees what everybody sees, and what is their own.
    Other,
}

#[derive(Clone, Default)]
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) refresh: String,
}

impl Person {
    pub(super) fn tokens(&self) -> Tokens {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the tokens of an answer of `signIn` or `refreshSession`.
    pub(super) fn keep(&self, answer: &[u8]) -> Result<()> {
        let answer: Value = serde_json::from_slice(answer)?;
        let payload = answer["data"].as_object().and_then(|data| data.values().next()).context("no data")?;
        let text = |name: &str| {
            payload[name].as_str().map(str::to_owned).with_context(|| format!("no {name}: {answer}"))
        };
        let tokens = Tokens { access: text("accessToken")?, refresh: text("refreshToken")? };
        *self.tokens.lock().unwrap_or_else(PoisonError::into_inner) = tokens;
        Ok(())
    }
}

/// A connection of somebody who signs in: from an address that nobody else had before.
pub(super) async fn connection_of_sign_in(address: SocketAddr, number: u32) -> Result<Connection> {
    Connection::over(connect(address, SIGN_INS_FROM + number * SIGN_INS_APART).await?)
}

/// Chooses people, gives them the password that `known` has, and signs them in.
pub(super) async fn sign_in(
    database: &mut Database,
    address: SocketAddr,
    known: Uuid,
    password: &str,
    count: u32,
) -> Result<Vec<Person>> {
    let managers = (count / 20).max(4);
    let mut people = Vec::new();
    for (role, many) in
        [("MANAGER", managers), ("EDITOR", count / 10), ("COLLECTOR", count - managers - count / 10)]
    {
        let emails = database.give_password(known, role, many).await?;
        let role = if role == "MANAGER" { Role::Manager } else { Role::Other };
        people.extend(emails.into_iter().map(|email| Person { email, role, tokens: Mutex::default() }));
    }
    ensure!(
        people.len() == count as usize,
        "the database has only {} accounts to sign in with",
        people.len()
    );
    for (number, person) in (0..).zip(&people) {
        let mut connection = connection_of_sign_in(address, number).await?;
        let request = mix::sign_in(&person.email, password);
        let answer = connection.exchange(&request).await?;
        let said = || format!("{} does not get in: {}", person.email, String::from_utf8_lossy(answer.body));
        person.keep(answer.body).with_context(said)?;
    }
    Ok(people)
}

/// Makes a form that takes submissions; its id.
pub(super) async fn make_form(connection: &mut Connection, manager: &Person, title: &str) -> Result<Uuid> {
    let definition = json!({ "schema": 1, "fields": [
        { "key": "name", "type": "TEXT", "label": "Name", "required": true },
        { "key": "adults", "type": "INTEGER", "label": "Adults", "constraints": { "min": 0, "max": 20 } },
    ] });
    let create = json!({ "query": "mutation($input: CreateFormInput!) { createForm(input: $input) \
        { form { id draftRevision } userErrors { message } } }",
        "variables": { "input": { "title": title, "definition": definition } } });
    let access = manager.tokens().access;
    let made = ask(connection, &create, &access).await?;
    let form = &made["data"]["createForm"]["form"];
    let publish = json!({ "query": "mutation($input: PublishFormInput!) { publishForm(input: $input) \
        { form { status } userErrors { message } } }",
        "variables": { "input": { "id": form["id"], "baseRevision": form["draftRevision"] } } });
    let published = ask(connection, &publish, &access).await?;
    ensure!(
        published["data"]["publishForm"]["form"]["status"] == "OPEN",
        "the form is not open: {made} {published}"
    );
    Ok(form["id"].as_str().context("no id")?.parse()?)
}

async fn ask(connection: &mut Connection, body: &Value, token: &str) -> Result<Value> {
    let request = crate::workload::post(&body.to_string(), token);
    let answer = connection.exchange(request.as_bytes()).await?;
    Ok(serde_json::from_slice(answer.body)?)
}
