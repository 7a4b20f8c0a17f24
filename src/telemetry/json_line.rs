//! A line of the log as JSON, written in one pass: with names of its own, or with those of the Elastic Common Schema
//! (<https://www.elastic.co/guide/en/ecs/8.11/index.html>). Not here: which lines there are, and where they go
//! (`writer`).

use std::{fmt, io};

use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormattedFields,
        format::{JsonFields, Writer},
        time::{FormatTime as _, SystemTime},
    },
    registry::{LookupSpan, Scope},
};

/// The version of the schema that `EcsNames` is of.
const ECS_VERSION: &str = "8.11.0";

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
        write!(out, "{{\"{timestamp}\":\"")?;
        SystemTime.format_time(&mut out)?;
        write!(out, "\",\"{level}\":\"{}\"", metadata.level())?;
        let mut fields = Fields { is_ecs: matches!(self, Self::Ecs { .. }), out: &mut out, written: Ok(()) };
        event.record(&mut fields);
        fields.written?;
        write!(out, ",\"{target}\":")?;
        json(&mut out, metadata.target())?;
        if let Self::Ecs { service } = self {
            write!(out, ",\"ecs.version\":\"{ECS_VERSION}\",\"service.name\":")?;
            json(&mut out, service)?;
        }
        let mut spans = context.event_scope().into_iter().flat_map(Scope::from_root).peekable();
        if spans.peek().is_some() {
            out.write_str(if matches!(self, Self::Plain) { ",\"spans\":[" } else { ",\"xp.spans\":[" })?;
            for (place, span) in spans.enumerate() {
                out.write_str(if place > 0 { ",{\"name\":" } else { "{\"name\":" })?;
                json(&mut out, span.name())?;
                // It is an object.
                let extensions = span.extensions();
                let fields =
                    extensions.get::<FormattedFields<JsonFields>>().map(|fields| fields.fields.as_str());
                match fields.and_then(|fields| fields.strip_prefix('{')) {
                    Some(fields) if fields != "}" => write!(out, ",{fields}")?,
                    _ => out.write_char('}')?,
                }
            }
            out.write_char(']')?;
        }
        out.write_str("}\n")
    }
}

/// Writes `,"name":value` for each field.
struct Fields<'a, 'w> {
    is_ecs: bool,
    out: &'a mut Writer<'w>,
    written: fmt::Result,
}

impl Fields<'_, '_> {
    fn write(&mut self, field: &Field, value: impl Serialize) {
        if self.written.is_ok() {
            self.written = self.name(field.name()).and_then(|()| json(self.out, value));
        }
    }

    fn name(&mut self, name: &str) -> fmt::Result {
        if !self.is_ecs {
            return write!(self.out, ",\"{name}\":");
        }
        match ECS_NAMES.binary_search_by_key(&name, |(own, _)| own) {
            Ok(found) => write!(self.out, ",\"{}\":", ECS_NAMES[found].1),
            Err(_) => write!(self.out, ",\"xp.{name}\":"),
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if self.is_ecs && field.name() == "ms" {
            // The schema counts nanoseconds.
            if self.written.is_ok() {
                self.written = write!(self.out, ",\"event.duration\":{}", (value * 1e6).round() as u64);
            }
            return;
        }
        self.write(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, format_args!("{value:?}"));
    }
}

/// Writes a value as JSON.
fn json(out: &mut Writer<'_>, value: impl Serialize) -> fmt::Result {
    serde_json::to_writer(JsonOut(out), &value).map_err(|_| fmt::Error)
}

/// Takes the bytes of a text.
struct JsonOut<'a, 'w>(&'a mut Writer<'w>);

impl io::Write for JsonOut<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_str(text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
