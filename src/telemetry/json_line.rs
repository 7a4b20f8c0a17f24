//! A line of the log as JSON, written in one pass: with names of its own, or with those of the Elastic Common Schema
//! (<https://www.elastic.co/guide/en/ecs/8.11/index.html>). Not here: which lines there are, and where they go
//! (`writer`).

use std::fmt;

use entities::clock;
use schema::engine::scalar::{Leaf as _, write_json, write_text};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
    },
    registry::{LookupSpan, Scope},
};

/// The version of the schema that `ECS_NAMES` are of.
const ECS_VERSION: &str = "8.11.0";
/// What most lines take.
const USUAL_BYTES: usize = 512;

/// What the fields of this server are called there. Others get the server's prefix, as the schema wants it of what it
/// does not know.
const ECS_NAMES: [(&str, &str); 12] = [
    ("client_name", "graphql.client.name"),
    ("client_version", "graphql.client.version"),
    ("codes", "error.code"),
    ("document_id", "graphql.document.id"),
    ("error", "error.message"),
    ("message", "message"),
    ("operation", "graphql.operation.type"),
    ("operation_name", "graphql.operation.name"),
    ("request_id", "http.request.id"),
    ("status", "http.response.status_code"),
    ("trace_id", "trace.id"),
    ("viewer", "user.id"),
];

/// Writes events as JSON.
pub(super) enum JsonLine {
    /// With the names of the fields as they are.
    Plain,
    /// With those of the Elastic Common Schema.
    Ecs { service: String },
}

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let names = match self {
            Self::Plain => ["timestamp", "level", "target"],
            Self::Ecs { .. } => ["@timestamp", "log.level", "log.logger"],
        };
        let [timestamp, level, target] = names;
        // Bytes of our own and one write: `out` checks and grows with each part that is written to it.
        let mut line = Vec::with_capacity(USUAL_BYTES);
        push(&mut line, &["{\"", timestamp, "\":"]);
        clock::now().write(&mut line);
        push(&mut line, &[",\"", level, "\":\"", metadata.level().as_str(), "\""]);
        event.record(&mut Fields { is_ecs: matches!(self, Self::Ecs { .. }), line: &mut line });
        push(&mut line, &[",\"", target, "\":"]);
        write_text(metadata.target(), &mut line);
        if let Self::Ecs { service } = self {
            push(&mut line, &[",\"ecs.version\":\"", ECS_VERSION, "\",\"service.name\":"]);
            write_text(service, &mut line);
        }
        let mut spans = context.event_scope().into_iter().flat_map(Scope::from_root).peekable();
        if spans.peek().is_some() {
            push(&mut line, &[if matches!(self, Self::Plain) { ",\"spans\":[" } else { ",\"xp.spans\":[" }]);
            for (place, span) in spans.enumerate() {
                push(&mut line, &[if place > 0 { ",{\"name\":" } else { "{\"name\":" }]);
                write_text(span.name(), &mut line);
                // It is an object.
                let extensions = span.extensions();
                let fields =
                    extensions.get::<FormattedFields<JsonFields>>().map(|fields| fields.fields.as_str());
                match fields.and_then(|fields| fields.strip_prefix('{')) {
                    Some(fields) if fields != "}" => push(&mut line, &[",", fields]),
                    _ => push(&mut line, &["}"]),
                }
            }
            push(&mut line, &["]"]);
        }
        push(&mut line, &["}\n"]);
        out.write_str(str::from_utf8(&line).map_err(|_| fmt::Error)?)
    }
}

/// Appends texts as they are.
fn push(line: &mut Vec<u8>, texts: &[&str]) {
    for text in texts {
        line.extend_from_slice(text.as_bytes());
    }
}

/// Writes `,"name":value` for each field.
struct Fields<'a> {
    is_ecs: bool,
    line: &'a mut Vec<u8>,
}

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        let name = field.name();
        if !self.is_ecs {
            return push(self.line, &[",\"", name, "\":"]);
        }
        match ECS_NAMES.binary_search_by_key(&name, |(own, _)| own) {
            Ok(found) => push(self.line, &[",\"", ECS_NAMES[found].1, "\":"]),
            Err(_) => push(self.line, &[",\"xp.", name, "\":"]),
        }
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if self.is_ecs && field.name() == "ms" {
            // The schema counts nanoseconds.
            push(self.line, &[",\"event.duration\":"]);
            return write_json(&((value * 1e6).round() as u64), self.line);
        }
        self.name(field);
        write_json(&value, self.line);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.name(field);
        write_json(&value, self.line);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        write_json(&value, self.line);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field);
        write_json(&value, self.line);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        write_text(value, self.line);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        write_json(&format_args!("{value:?}"), self.line);
    }
}
