//! The metrics of `/metrics` to a collector, by OTLP: the text is read back into families, so both say the same under
//! the same names. Counts go on from the start of the process (cumulative), so a push that
//! fails loses nothing. Not here: what is counted (`metrics` and the crates below), the address and the
//! headers (the configuration).

use std::time::Duration;

use axum::http::Uri;
use entities::clock::{self, Time};
use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, exemplar, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use prost::Message as _;

use super::{
    collector::{self, Collector},
    otlp,
};
use crate::{App, config::TelemetryConfig};

/// How long the last push may take.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Sends the metrics of one process.
pub(crate) struct MetricsPush {
    app: App,
    collector: Collector,
    to: Uri,
    every: Duration,
    began: Time,
}

impl MetricsPush {
    /// Where it is configured.
    pub(crate) fn of(app: &App) -> Option<Self> {
        let to = collector::address(&app.telemetry, "metrics")?.parse().ok()?;
        let every = app.telemetry.otlp_metrics_interval.filter(|every| !every.is_zero())?;
        // It has been told where the certificates cannot be read.
        let collector = Collector::new(&app.telemetry).ok()?;
        Some(Self { app: app.clone(), collector, to, every, began: clock::now() })
    }

    /// Sends them for ever.
    pub(crate) async fn run(&self) {
        let mut was_told = false;
        loop {
            tokio::time::sleep(self.every).await;
            let failure = self.send().await.err();
            if let Some(why) = failure.as_ref().filter(|_| !was_told) {
                tracing::warn!(why, "the metrics cannot be sent to the collector; it is tried again");
            }
            was_told = failure.is_some();
        }
    }

    /// Sends them once more, at the end. A collector that is away has been told of.
    pub(crate) async fn finish(&self) {
        let _ = tokio::time::timeout(FINISH_WITHIN, self.send()).await;
    }

    async fn send(&self) -> Result<(), String> {
        let Self { app, collector, to, began, .. } = self;
        let text = app.exposition.text().await.ok_or("they cannot be written")?;
        let text = std::str::from_utf8(&text).map_err(|error| error.to_string())?;
        let message = message(text, &app.telemetry, (*began, clock::now())).encode_to_vec();
        let sent = collector.send(to, app.telemetry.otlp_headers.expose(), message.into()).await;
        sent.map_err(|error| error.to_string())
    }
}

/// The message for a text of `OpenMetrics`, of what was counted in this time.
fn message(text: &str, config: &TelemetryConfig, (began, now): (Time, Time)) -> ExportMetricsServiceRequest {
    let times = Times { began: nanoseconds(began), now: nanoseconds(now) };
    let metrics = families(text).iter().filter_map(|family| family.metric(&times)).collect();
    let resource = otlp::resource(config);
    let attributes = resource.iter().map(|(name, value)| text_attribute(name.as_str(), &value.to_string()));
    let resource = Resource { attributes: attributes.collect(), ..Resource::default() };
    let scope = InstrumentationScope { name: "xp".to_owned(), ..InstrumentationScope::default() };
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics,
            ..ResourceMetrics::default()
        }],
    }
}

/// Since when was counted, and when it is told; nanoseconds since 1970.
struct Times {
    began: u64,
    now: u64,
}

fn nanoseconds(time: Time) -> u64 {
    time.timestamp_nanos_opt().and_then(|time| time.try_into().ok()).unwrap_or_default()
}

fn text_attribute(name: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) };
    KeyValue { key: name.to_owned(), value: Some(value), ..KeyValue::default() }
}

/// A metric with all its series.
#[derive(Debug, Default, PartialEq)]
struct Family<'t> {
    name: &'t str,
    help: &'t str,
    kind: &'t str,
    samples: Vec<Sample<'t>>,
}

/// One line.
#[derive(Debug, PartialEq)]
struct Sample<'t> {
    /// What stands behind the family's name: nothing, `_total`, `_bucket` …
    suffix: &'t str,
    labels: Vec<(&'t str, String)>,
    value: f64,
    exemplar: Option<Sampled>,
}

/// An example of a value, with its trace.
#[derive(Debug, PartialEq)]
struct Sampled {
    trace_id: Vec<u8>,
    value: f64,
    at: u64,
}

/// Reads what `prometheus_client` writes.
fn families(text: &str) -> Vec<Family<'_>> {
    let mut families: Vec<Family<'_>> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.push(Family { name, help: help.trim_end_matches('.'), ..Family::default() });
        } else if let (Some(rest), Some(family)) = (line.strip_prefix("# TYPE "), families.last_mut()) {
            family.kind = rest.rsplit(' ').next().unwrap_or_default();
        } else if let Some(family) = families.last_mut()
            && let Some(sample) = Sample::read(line, family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

impl<'t> Sample<'t> {
    fn read(line: &'t str, family: &str) -> Option<Self> {
        let rest = line.strip_prefix(family)?;
        let (suffix, rest) = rest.split_at(rest.find(['{', ' '])?);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest)?,
            None => (Vec::new(), rest),
        };
        let (value, exemplar) = rest.trim_start().split_once(" # ").unwrap_or((rest, ""));
        let value = value.trim_start().split(' ').next()?.parse().ok()?;
        Some(Self { suffix, labels, value, exemplar: Sampled::read(exemplar) })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let told = self.labels.iter().filter(|(name, _)| *name != "le");
        told.map(|(name, value)| text_attribute(name, value)).collect()
    }

    fn has_labels_of(&self, other: &Self) -> bool {
        let told = |sample: &Self| {
            sample.labels.iter().filter(|(name, _)| *name != "le").cloned().collect::<Vec<_>>()
        };
        told(self) == told(other)
    }
}

impl Sampled {
    /// Reads `{trace_id="…"} value seconds`.
    fn read(text: &str) -> Option<Self> {
        let (labels, rest) = read_labels(text.strip_prefix('{')?)?;
        let (_, trace_id) = labels.iter().find(|(name, _)| *name == "trace_id")?;
        let mut numbers = rest.trim_start().split(' ').map(str::parse::<f64>);
        let value = numbers.next()?.ok()?;
        let at = (numbers.next()?.ok()? * 1e9) as u64;
        Some(Self { trace_id: hex::decode(trace_id).ok()?, value, at })
    }
}

/// The labels up to the closing brace, and what stands behind it.
fn read_labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, value) = rest.split_once("=\"")?;
        let (text, behind) = read_text(value)?;
        labels.push((name, text));
        rest = behind.strip_prefix(',').unwrap_or(behind);
    }
}

/// A text up to its closing quotation mark, and what stands behind it.
fn read_text(written: &str) -> Option<(String, &str)> {
    let (mut text, mut rest) = (String::new(), written.char_indices());
    while let Some((at, character)) = rest.next() {
        match character {
            '"' => return Some((text, &written[at + 1..])),
            '\\' => text.push(match rest.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => text.push(other),
        }
    }
    None
}

impl Family<'_> {
    /// As OTLP has it; `None` where it has no series.
    fn metric(&self, times: &Times) -> Option<Metric> {
        if self.samples.is_empty() {
            return None;
        }
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let data = match self.kind {
            "counter" => Data::Sum(Sum {
                data_points: self.samples.iter().map(|sample| point(sample, times.began, times)).collect(),
                aggregation_temporality,
                is_monotonic: true,
            }),
            "histogram" => {
                Data::Histogram(Histogram { data_points: self.histograms(times), aggregation_temporality })
            }
            // A gauge is what it is now.
            _ => Data::Gauge(Gauge {
                data_points: self.samples.iter().map(|sample| point(sample, 0, times)).collect(),
            }),
        };
        Some(Metric {
            name: self.name.to_owned(),
            description: self.help.to_owned(),
            unit: self.unit().to_owned(),
            data: Some(data),
            ..Metric::default()
        })
    }

    /// By the ending of the name, as `OpenMetrics` wants it.
    fn unit(&self) -> &'static str {
        [("_seconds", "s"), ("_bytes", "By")]
            .into_iter()
            .find(|(ending, _)| self.name.ends_with(ending))
            .map_or("", |(_, unit)| unit)
    }

    /// The lines of one series follow each other: sum, count, buckets.
    fn histograms(&self, times: &Times) -> Vec<HistogramDataPoint> {
        let series = self.samples.chunk_by(Sample::has_labels_of);
        series.map(|lines| histogram(lines, times)).collect()
    }
}

fn point(sample: &Sample<'_>, began: u64, times: &Times) -> NumberDataPoint {
    NumberDataPoint {
        attributes: sample.attributes(),
        start_time_unix_nano: began,
        time_unix_nano: times.now,
        value: Some(number_data_point::Value::AsDouble(sample.value)),
        ..NumberDataPoint::default()
    }
}

/// Prometheus counts a value in each bucket that it fits in, OTLP in the first one only.
fn histogram(lines: &[Sample<'_>], times: &Times) -> HistogramDataPoint {
    let of = |suffix: &str| lines.iter().find(|line| line.suffix == suffix).map_or(0.0, |line| line.value);
    let buckets: Vec<_> = lines.iter().filter(|line| line.suffix == "_bucket").collect();
    let explicit_bounds = buckets
        .iter()
        .filter_map(|line| line.label("le")?.parse().ok())
        .filter(|bound: &f64| bound.is_finite())
        .collect();
    let before = std::iter::once(0.0).chain(buckets.iter().map(|line| line.value));
    let bucket_counts =
        buckets.iter().zip(before).map(|(line, before)| (line.value - before) as u64).collect();
    HistogramDataPoint {
        attributes: lines[0].attributes(),
        start_time_unix_nano: times.began,
        time_unix_nano: times.now,
        count: of("_count") as u64,
        sum: Some(of("_sum")),
        bucket_counts,
        explicit_bounds,
        exemplars: buckets.iter().filter_map(|line| line.exemplar.as_ref()).map(exemplar_of).collect(),
        ..HistogramDataPoint::default()
    }
}

fn exemplar_of(sampled: &Sampled) -> Exemplar {
    Exemplar {
        trace_id: sampled.trace_id.clone(),
        time_unix_nano: sampled.at,
        value: Some(exemplar::Value::AsDouble(sampled.value)),
        ..Exemplar::default()
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        metrics::{
            counter::Counter, exemplar::HistogramWithExemplars, family::Family as Labelled,
            gauge::Gauge as Level,
        },
        registry::Registry,
    };

    use super::*;
    use crate::config::Config;

    /// As a collector reads what is sent.
    fn received(registry: &Registry) -> Vec<Metric> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("written");
        let times = (Time::UNIX_EPOCH + Duration::from_secs(1), Time::UNIX_EPOCH + Duration::from_secs(2));
        let request = message(&text, &Config::default().telemetry, times);
        let [resource] = request.resource_metrics.try_into().expect("one resource");
        let names = resource.resource.expect("a resource").attributes.into_iter().map(|pair| pair.key);
        let names: Vec<_> = names.collect();
        for name in ["service.name", "service.version", "service.instance.id"] {
            assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
        }
        let [scope] = resource.scope_metrics.try_into().expect("one scope");
        scope.metrics
    }

    #[test]
    fn every_kind_of_metric_arrives_as_it_is() {
        let mut registry = Registry::default();
        let counter = Labelled::<Vec<(&str, &str)>, Counter>::default();
        let strange = "a \"b\\ c\n{d}=,";
        counter.get_or_create(&vec![("code", "X"), ("text", strange)]).inc_by(3);
        counter.get_or_create(&vec![("code", "Y"), ("text", "")]).inc();
        registry.register("errors", "Errors by code", counter);
        let gauge = Level::<i64>::default();
        gauge.set(-7);
        registry.register("size_bytes", "How large", gauge);
        let histogram = HistogramWithExemplars::<Vec<(&str, &str)>>::new([0.5, 1.0].into_iter());
        for value in [0.1, 0.2, 5.0] {
            histogram.observe(value, None, None);
        }
        let traced = Some(vec![("trace_id", "0af7651916cd43dd8448eb211c80319c")]);
        histogram.observe(0.7, traced, Some(std::time::UNIX_EPOCH + Duration::from_secs(3)));
        registry.register("duration_seconds", "How long", histogram);
        registry.register("empty", "None yet", Labelled::<Vec<(&str, &str)>, Counter>::default());

        let metrics = received(&registry);
        let told: Vec<_> =
            metrics.iter().map(|it| (it.name.as_str(), it.description.as_str(), it.unit.as_str())).collect();
        assert_eq!(
            told,
            [
                ("errors", "Errors by code", ""),
                ("size_bytes", "How large", "By"),
                ("duration_seconds", "How long", "s")
            ]
        );
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:?}") };
        assert_eq!(
            (sum.is_monotonic, sum.aggregation_temporality),
            (true, AggregationTemporality::Cumulative.into())
        );
        let mut points: Vec<_> = sum.data_points.iter().map(|point| format!("{:?}", point.value)).collect();
        points.sort();
        assert_eq!(points, ["Some(AsDouble(1.0))", "Some(AsDouble(3.0))"]);
        let of_x =
            sum.data_points.iter().find(|point| point.value == Some(number_data_point::Value::AsDouble(3.0)));
        let of_x = of_x.expect("its series");
        assert!(format!("{:?}", of_x.attributes).contains(&format!("{strange:?}")), "{of_x:?}");
        assert_eq!((of_x.start_time_unix_nano, of_x.time_unix_nano), (1_000_000_000, 2_000_000_000));
        let Some(Data::Gauge(gauge)) = &metrics[1].data else { panic!("{metrics:?}") };
        assert_eq!(gauge.data_points[0].value, Some(number_data_point::Value::AsDouble(-7.0)));
        let Some(Data::Histogram(histogram)) = &metrics[2].data else { panic!("{metrics:?}") };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum), (4, Some(6.0)));
        assert_eq!((&point.bucket_counts[..], &point.explicit_bounds[..]), (&[2, 1, 1][..], &[0.5, 1.0][..]));
        let [example] = &point.exemplars[..] else { panic!("{point:?}") };
        let trace = hex::encode(&example.trace_id);
        assert_eq!(
            (trace.as_str(), example.time_unix_nano),
            ("0af7651916cd43dd8448eb211c80319c", 3_000_000_000)
        );
        assert_eq!(example.value, Some(exemplar::Value::AsDouble(0.7)));
    }
}
