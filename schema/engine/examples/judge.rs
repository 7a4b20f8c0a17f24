//! Judges documents as the server does, without one: `judge schema.graphql` reads a JSON object from each
//! line of its input (`query`, `variables`, `operationName`) and writes a JSON object to each line of its
//! output: `kind` is `ok`, `syntax`, `limit`, `validation`, `operation` or `coercion`. For
//! `tests/conformance`, which compares the verdicts with those of graphql-js. Limits are far above those of
//! the server.

use std::io::{self, BufRead, Write};

use async_graphql::parser::parse_schema;
use engine::{
    cost::OutputTypes,
    document::{Document, Rules},
    federation::gateway::ForGateways,
    limits::{self, Limits},
    syntax,
    validation::{self, SchemaTypes},
    variables::{self, InputTypes, VariableSets},
};
use serde_json::{Value, json};

const LIMITS: Limits = Limits {
    bytes: 1 << 20,
    tokens: 20_000,
    ignored_bytes: 4 << 20,
    nesting: 128,
    aliases: 5_000,
    directives: 5_000,
    root_fields: 5_000,
    operations: 500,
    fragments: 500,
    selections: 100_000,
    depth: 100,
    introspection_depth: 100,
    introspection_lists: 100,
    ..Limits::public()
};

struct Judge {
    types: SchemaTypes,
    input_types: InputTypes,
    output_types: OutputTypes,
}

impl Judge {
    fn judge(&self, request: &Value) -> Value {
        let text = request["query"].as_str().unwrap_or_default();
        let tree = match syntax::parse(text, &LIMITS) {
            Ok(tree) => tree,
            Err(refusal) => {
                let kind = match refusal.kind {
                    limits::LimitErrorKind::Parse => "syntax",
                    limits::LimitErrorKind::Validation => "validation",
                    _ => "limit",
                };
                return json!({
                    "kind": kind, "message": refusal.message,
                    "locations": [{"line": refusal.line, "column": refusal.column}],
                });
            }
        };
        let errors = validation::validate(&tree, &self.types, true);
        if let Some(first) = errors.first() {
            let place =
                |place: &engine::error::SourceLocation| json!({"line": place.line, "column": place.column});
            let places: Vec<Value> = first.locations.iter().map(place).collect();
            return json!({"kind": "validation", "message": first.message, "locations": places});
        }
        let parsed = tree.lower();
        let for_gateways = ForGateways::of(&parsed, None);
        let document = Document::new(parsed, for_gateways, &self.output_types, &Rules::default());
        let operation = match document.operation(request["operationName"].as_str()) {
            Ok(operation) => operation,
            Err(error) => return json!({"kind": "operation", "message": error.message}),
        };
        let given = match variables::read(&request["variables"]) {
            Ok(VariableSets::One(given)) => given,
            Ok(VariableSets::Many(_)) => {
                return json!({"kind": "coercion", "message": "variables must be one object"});
            }
            Err(error) => return json!({"kind": "coercion", "message": error.to_string()}),
        };
        match self.input_types.coerce(&operation.parsed.node.variable_definitions, given) {
            Ok(_) => json!({"kind": "ok"}),
            Err(error) => json!({"kind": "coercion", "message": error.message}),
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("which schema? judge schema.graphql")?;
    let text = std::fs::read_to_string(path)?;
    let sdl = parse_schema(&text)?;
    let judge = Judge {
        types: SchemaTypes::of(&sdl, &text),
        input_types: InputTypes::of(&sdl, &[]),
        output_types: OutputTypes::of(&sdl),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        writeln!(out, "{}", judge.judge(&request))?;
    }
    Ok(out.flush()?)
}
