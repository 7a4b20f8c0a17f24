//! What messages say: where and what is wrong, in standard English, and nothing of what was sent. Not here:
//! which documents are refused (`limits`); descriptions of the schema (`published`).

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::harness::TestApp;

/// Messages end in the logs of clients and gateways. What stands in a literal or a variable may be a password.
#[tokio::test]
async fn no_message_repeats_a_value() {
    let planted = "hunter2-hunter2";
    let sign_in = |input: &str| format!("mutation {{ signIn(input: {{ {input} }} ) {{ accessToken }} }}");
    let documents = [
        format!(
            "mutation {{ signIn(input: {{ email: \"a\", password: \"{planted}\" ) }} {{ accessToken }} }}"
        ),
        format!("mutation {{ signIn(input: {{ email: \"a\", password \"{planted}\" }}) {{ accessToken }} }}"),
        format!(
            "mutation {{ signIn(input: {{ email: \"a\" password: \"{planted}\"!! }}) {{ accessToken }} }}"
        ),
        format!(
            "mutation {{ signIn(input: {{ email: \"a\" password: \"\"\"{planted}\"\"\" \"{planted}\" }}) {{ accessToken }} }}"
        ),
        format!("mutation {{ signIn(input: {{ email: \"a\", password: \"{planted} }}) {{ accessToken }} }}"),
        "mutation { signIn(input: { email: \"a\", password: \"hun\"hunter2 }) { accessToken } }".to_owned(),
        sign_in(&format!("email: \"a\", password: [\"{planted}\"]")),
        sign_in(&format!("email: \"a\", password: {{ a: \"{planted}\" }}")),
        sign_in("email: \"a\", password: hunter2_hunter2"),
        sign_in(&format!("email: \"a\", password: \"a\", sessionName: [\"{planted}\"]")),
        sign_in(&format!("email: \"a\", password: \"a\", other: \"{planted}\"")),
        format!("{{ users(first: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(filter: {{ roles: [\"{planted}\"] }}) {{ totalCount }} }}"),
        format!("{{ users(filter: {{ isActive: \"{planted}\" }}) {{ totalCount }} }}"),
        format!("{{ users(filter: {{ createdAt: {{ from: \"{planted}\" }} }}) {{ totalCount }} }}"),
        format!("{{ users(after: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(hunter: \"{planted}\") {{ totalCount }} }}"),
        format!("{{ users(orderBy: {{ field: \"{planted}\", direction: ASC }}) {{ totalCount }} }}"),
        format!("{{ user(id: \"{planted}\") {{ id }} }}"),
        format!("{{ userBy(lookup: {{ id: \"{planted}\", email: \"{planted}\" }}) {{ id }} }}"),
        format!("{{ me @include(if: \"{planted}\") {{ id }} }}"),
        format!("query($n: Int = \"{planted}\") {{ users(first: $n) {{ totalCount }} }}"),
        format!("query($r: [Role!] = [\"{planted}\"]) {{ users(filter: {{ roles: $r }}) {{ totalCount }} }}"),
        format!("{{ _entities(representations: [\"{planted}\"]) {{ __typename }} }}"),
    ];
    for app in TestApp::both().await {
        for document in &documents {
            let reply = app.as_admin().run(document, json!({})).await;
            assert!(
                !reply.errors.is_empty() && !reply.body.contains("hunter2"),
                "{document}: {}",
                reply.body
            );
            let places = reply.errors[0]["locations"].as_array().map_or(0, Vec::len);
            assert!(places > 0, "{document}: {}", reply.body);
            let echoed = reply.errors[0]["message"].as_str().map_or(0, |message| message.chars().count());
            assert!(echoed <= 160, "{}", reply.body);
        }
        for (document, value) in [
            ("query($v: Int) { users(first: $v) { totalCount } }", json!(planted)),
            ("query($v: [Role!]) { users(filter: { roles: $v }) { totalCount } }", json!(["ADMIN", planted])),
            ("query($v: UserFilter) { users(filter: $v) { totalCount } }", json!({ "roles": [planted] })),
            ("query($v: UserFilter) { users(filter: $v) { totalCount } }", json!({ "isActive": planted })),
            (
                "query($v: UserFilter) { users(filter: $v) { totalCount } }",
                json!({ "createdAt": { "to": planted } }),
            ),
            (
                "query($v: UserLookup!) { userBy(lookup: $v) { id } }",
                json!({ "id": planted, "email": planted }),
            ),
            ("query($v: Boolean!) { me @skip(if: $v) { id } }", json!(planted)),
            ("query($v: [ID!]!) { nodes(ids: $v) { id } }", json!([planted])),
            ("query($v: String) { users(after: $v) { totalCount } }", json!(planted)),
            ("mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }", json!({ "email": planted })),
            (
                "mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }",
                json!({ "email": "a", "password": [planted] }),
            ),
            (
                "mutation($v: SignInInput!) { signIn(input: $v) { accessToken } }",
                json!({ "email": "a", "password": { "a": planted } }),
            ),
        ] {
            let reply = app.as_admin().run(document, json!({ "v": value })).await;
            assert!(
                !reply.errors.is_empty() && !reply.body.contains("hunter2"),
                "{document}: {}",
                reply.body
            );
        }
    }
}

/// "This is no id" is said in verse; people write "Invalid id: expected a UUID." or "This is not an id."
pub(crate) fn is_riddle(text: &str) -> bool {
    let words: Vec<String> = text
        .split(|sign: char| !sign.is_alphanumeric() && !matches!(sign, '\'' | '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let is_verb =
        |word: &str| matches!(word, "is" | "are" | "was" | "were" | "be" | "been" | "being" | "isn" | "to");
    let follows = |at: usize| words.get(at).map_or("", String::as_str);
    (0..words.len()).any(|at| match (words[at].as_str(), follows(at + 1)) {
        (verb, "none" | "nobody") => is_verb(verb),
        (verb, "no") => is_verb(verb) && !matches!(follows(at + 2), "longer" | "more"),
        _ => false,
    })
}

/// The texts in a file of Rust, with the number of the line: string literals, without tests.
fn literals(source: &str) -> Vec<(usize, String)> {
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let (mut found, mut rest, mut line) = (Vec::new(), source, 1);
    while let Some(sign) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some((text, length)) = literal(rest) {
            found.push((line, text));
            length
        } else if sign == '\'' {
            // A character; else it is a lifetime.
            let character = rest[1..]
                .strip_prefix('\\')
                .map(|escaped| escaped.find('\'').map_or(2, |end| end.max(1) + 3));
            let plain =
                rest[1..].chars().next().filter(|plain| rest[1 + plain.len_utf8()..].starts_with('\''));
            character.unwrap_or_else(|| plain.map_or(1, |plain| plain.len_utf8() + 2))
        } else {
            sign.len_utf8()
        };
        let length = length.min(rest.len());
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

/// The text of the literal that begins here, and how long it is in the source.
fn literal(source: &str) -> Option<(String, usize)> {
    if let Some(raw) = source.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let text = raw[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let length = text.find(&end)?;
        return Some((text[..length].to_owned(), 1 + hashes + 1 + length + end.len()));
    }
    let text = source.strip_prefix('"')?;
    let (mut told, mut signs) = (String::new(), text.char_indices());
    while let Some((at, sign)) = signs.next() {
        match sign {
            '"' => return Some((told, at + 2)),
            '\\' => match signs.next()? {
                (_, '\n') => {
                    let after = text[at + 2..].len() - text[at + 2..].trim_start().len();
                    for _ in text[at + 2..at + 2 + after].chars() {
                        signs.next();
                    }
                }
                (_, 'n') => told.push('\n'),
                (_, other) => told.push(other),
            },
            sign => told.push(sign),
        }
    }
    None
}

/// All files of product code under a folder.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    const NOT_OF_THE_PRODUCT: [&str; 5] = ["tests", "tests.rs", "benches", "examples", "target"];
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if NOT_OF_THE_PRODUCT.contains(&name) {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "jsx") {
            found.push(path);
        }
    }
}

#[test]
fn every_message_is_in_standard_english() {
    for riddle in [
        "this is no id",
        "Its text is none.",
        "there is no `x`",
        "They were no numbers",
        "a time that is NONE",
    ] {
        assert!(is_riddle(riddle), "{riddle}");
    }
    for plain in ["it is no longer known", "no answer in time", "it is not an id", "nobody has no draft"] {
        assert!(!is_riddle(plain), "{plain}");
    }
    let source =
        "fn f<'a>(c: &'a str) { g('\"', '\\'', \"one \\\n   two\", r#\"a \"b\"\"#); } // \"c\"\n\"d\"";
    let texts: Vec<String> = literals(source).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one two", "a \"b\"", "d"]);

    let (root, mut all) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
    for folder in ["src", "schema", "entities", "migration", "playground/src"] {
        files(&root.join(folder), &mut all);
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    for path in all {
        let source = fs::read_to_string(&path).expect("UTF-8");
        let place = path.strip_prefix(root).expect("it is inside").display().to_string();
        let mut texts = literals(&source);
        // The help of commands and the table of settings are made of these.
        if place.starts_with("src/cli") || place.starts_with("src/config") {
            let lines = source.lines().enumerate();
            texts.extend(
                lines.filter_map(|(at, line)| Some((at + 1, line.trim().strip_prefix("///")?.to_owned()))),
            );
        }
        count += texts.len();
        wrong.extend(
            texts
                .iter()
                .filter(|(_, text)| is_riddle(text))
                .map(|(line, text)| format!("{place}:{line}: {text}")),
        );
    }
    assert!(count > 3_000, "{count}");
    assert!(wrong.is_empty(), "say what is expected instead:\n{}", wrong.join("\n"));
}

/// A doc comment is read alone: in an editor, in the help of a command, in a table. It does not lean on the
/// one before it.
#[test]
fn every_doc_comment_stands_alone() {
    let (root, mut all) = (Path::new(env!("CARGO_MANIFEST_DIR")), Vec::new());
    for folder in ["src", "schema", "entities", "migration", "tests/it"] {
        files(&root.join(folder), &mut all);
    }
    let mut leaning = Vec::new();
    for path in all {
        let (source, mut before) = (fs::read_to_string(&path).expect("UTF-8"), "");
        for (at, line) in source.lines().enumerate() {
            let line = line.trim();
            let begins = line.starts_with("/// ") && !before.starts_with("///");
            if begins
                && ["/// The same", "/// As above", "/// Likewise", "/// Ditto"]
                    .iter()
                    .any(|lean| line.starts_with(lean))
            {
                leaning.push(format!("{}:{}: {line}", path.display(), at + 1));
            }
            before = line;
        }
    }
    assert!(leaning.is_empty(), "say what it is:\n{}", leaning.join("\n"));
}
