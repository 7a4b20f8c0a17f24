//! Which clients ask for which fields of the schema: counted for a sample of the operations, and estimated for all of
//! them. The counts are files that each process writes and `xp documents usage --fields` adds up; those of deprecated
//! fields are metrics, too. Clients are counted by name up to a bound, fields are those of the schema. Not here: what a
//! document selects (`engine::coordinates`), how often documents are asked for (`usage`).

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use entities::clock;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use schema::{
    Document,
    engine::coordinates::{CoordinateNumbers, Coordinates},
};
use serde::{Deserialize, Serialize};

use super::usage;
use crate::config::TelemetryConfig;

/// Names of clients that are counted by themselves, in one process and in one file.
const MOST_CLIENTS: usize = 50;
/// Characters of a name.
const LONGEST_NAME: usize = 64;
/// A client that was not seen for longer gives its name's place, of `MOST_CLIENTS`, to another one.
const STALE_AFTER: Duration = Duration::from_hours(30 * 24);
/// Operations of clients that do not say what they are.
const UNKNOWN: &str = "unknown";
/// Operations of clients beyond the bound.
pub const OTHER: &str = "other";
const WRITE_INTERVAL: Duration = Duration::from_mins(1);

/// How often one client asked for one field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldUse {
    /// Operations, estimated from the sample.
    pub operations: f64,
    /// When last, in seconds of Unix time.
    pub last_used_seconds: i64,
}

impl FieldUse {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: Self) {
        self.operations += other.operations;
        self.last_used_seconds = self.last_used_seconds.max(other.last_used_seconds);
    }
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldUsages {
    /// Since when it was counted, in seconds of Unix time.
    pub since_seconds: i64,
    /// Until when.
    pub until_seconds: i64,
    /// By coordinate, then by client.
    pub fields: BTreeMap<String, BTreeMap<String, FieldUse>>,
}

impl FieldUsages {
    /// Adds up what files say; `None`: there is none.
    pub fn sum(files: Vec<Self>) -> Option<Self> {
        files.into_iter().reduce(|mut sum, other| {
            sum.add(other);
            sum
        })
    }

    /// Counts what a client has asked for as what others have.
    fn merge_into_other(&mut self, client: &str) {
        for clients in self.fields.values_mut() {
            if let Some(used) = clients.remove(client) {
                clients.entry(OTHER.to_owned()).or_default().add(used);
            }
        }
    }

    /// Adds what another file says.
    fn add(&mut self, other: Self) {
        self.since_seconds = self.since_seconds.min(other.since_seconds);
        self.until_seconds = self.until_seconds.max(other.until_seconds);
        for (coordinate, clients) in other.fields {
            let own = self.fields.entry(coordinate).or_default();
            for (client, used) in clients {
                own.entry(client).or_default().add(used);
            }
        }
    }
}

/// What each of these files says.
///
/// # Errors
/// Where one is not there, or is none of these files: without it, fields that are in use would look unused.
pub fn read(files: &[PathBuf]) -> Result<Vec<FieldUsages>, String> {
    let read = |file: &PathBuf| read_one(file).map_err(|error| format!("{}: {error}", file.display()));
    files.iter().map(read).collect()
}

fn read_one(file: &Path) -> io::Result<FieldUsages> {
    Ok(serde_json::from_str(&fs::read_to_string(file)?)?)
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FieldLabels {
    coordinate: String,
    client: String,
}

/// What is counted of one client.
#[derive(Debug)]
struct ClientCounts {
    /// When it last asked for something, in seconds of Unix time.
    seen_seconds: i64,
    /// Of each coordinate, by its number.
    fields: Box<[FieldUse]>,
}

/// The client that was not seen for longest, where that is long enough for another one to take its place.
fn stale<'n>(clients: impl Iterator<Item = (&'n String, i64)>, now: i64) -> Option<String> {
    let named = clients.filter(|(client, _)| *client != OTHER);
    let (client, seen) = named.min_by_key(|(_, seen)| *seen)?;
    (now.saturating_sub(seen) > STALE_AFTER.as_secs().cast_signed()).then(|| client.clone())
}

/// Counts the fields that operations select.
pub(crate) struct FieldUsage {
    coordinates: Arc<Coordinates>,
    /// The part of operations that is counted.
    ratio: f64,
    file: Option<PathBuf>,
    /// Since when what is not in the file was counted, in seconds of Unix time.
    since_seconds: AtomicI64,
    /// Since the file was last written.
    counted: Mutex<BTreeMap<String, ClientCounts>>,
    /// Held while the file is written.
    writing: Mutex<()>,
    of_deprecated: Family<FieldLabels, Counter<f64, AtomicU64>>,
}

impl FieldUsage {
    /// Nothing is counted yet.
    pub(crate) fn new(
        config: &TelemetryConfig,
        coordinates: Arc<Coordinates>,
        registry: &mut Registry,
    ) -> Self {
        let of_deprecated = Family::default();
        registry.register(
            "graphql_deprecated_field_operations",
            "Operations that selected a field that is marked deprecated, by client; estimated from a sample",
            Family::clone(&of_deprecated),
        );
        let file = config.field_usage_file.clone();
        let is_of_use = file.is_some()
            || config.hive_endpoint.is_some()
            || coordinates.all().iter().any(|field| field.is_deprecated);
        Self {
            coordinates,
            ratio: if is_of_use { config.field_usage.0 } else { 0.0 },
            file,
            since_seconds: AtomicI64::new(clock::now().timestamp()),
            counted: Mutex::default(),
            writing: Mutex::default(),
            of_deprecated,
        }
    }

    /// What an operation selects, if it is one of those that are counted.
    pub(crate) fn sample(
        &self,
        document: &Document,
        operation_name: Option<&str>,
    ) -> Option<CoordinateNumbers> {
        if self.is_sampled() { document.selected(operation_name, &self.coordinates) } else { None }
    }

    fn is_sampled(&self) -> bool {
        // Most servers count nothing: they have no file, no deprecated fields and report to nobody.
        self.ratio > 0.0 && fastrand::f64() < self.ratio
    }

    /// Counts an operation of the sample, which selected this for this client.
    pub(crate) fn count(&self, fields: &[u32], client: Option<&str>) {
        if fields.is_empty() {
            return;
        }
        self.count_at(fields, client, clock::now().timestamp());
    }

    fn count_at(&self, fields: &[u32], client: Option<&str>, now: i64) {
        let one = FieldUse { operations: 1.0 / self.ratio, last_used_seconds: now };
        let client: String = client.unwrap_or(UNKNOWN).chars().take(LONGEST_NAME).collect();
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = counted.contains_key(&client);
        let named = counted.len() - usize::from(counted.contains_key(OTHER));
        let has_place = is_known || named < MOST_CLIENTS || self.make_place(&mut counted, now);
        let client = if has_place { client } else { OTHER.to_owned() };
        for number in fields {
            let Some(field) = self.coordinates.all().get(*number as usize) else { continue };
            if field.is_deprecated {
                let labels = FieldLabels { coordinate: field.name.clone(), client: client.clone() };
                self.of_deprecated.get_or_create(&labels).inc_by(one.operations);
            }
        }
        let of_client = counted.entry(client).or_insert_with(|| self.nothing(now));
        of_client.seen_seconds = now;
        for number in fields {
            if let Some(used) = of_client.fields.get_mut(*number as usize) {
                used.add(one);
            }
        }
    }

    /// Takes the place of a client that was not seen for long, where there is one: what is not yet in the file of it
    /// counts for others, and its series of metrics end.
    fn make_place(&self, counted: &mut BTreeMap<String, ClientCounts>, now: i64) -> bool {
        let seen = counted.iter().map(|(client, counts)| (client, counts.seen_seconds));
        let Some(client) = stale(seen, now) else { return false };
        let Some(counts) = counted.remove(&client) else { return false };
        let other = counted.entry(OTHER.to_owned()).or_insert_with(|| self.nothing(counts.seen_seconds));
        other.fields.iter_mut().zip(counts.fields).for_each(|(other, used)| other.add(used));
        for field in self.coordinates.all().iter().filter(|field| field.is_deprecated) {
            let labels = FieldLabels { coordinate: field.name.clone(), client: client.clone() };
            self.of_deprecated.remove(&labels);
        }
        true
    }

    /// Nothing of each coordinate.
    fn nothing(&self, seen_seconds: i64) -> ClientCounts {
        let fields = vec![FieldUse::default(); self.coordinates.all().len()].into();
        ClientCounts { seen_seconds, fields }
    }

    /// Writes the file every minute, from now on.
    pub(crate) async fn keep_written(self: Arc<Self>) {
        loop {
            let this = Arc::clone(&self);
            // Of many clients it is a file of a megabyte or two.
            let _ = tokio::task::spawn_blocking(move || this.write()).await;
            tokio::time::sleep(WRITE_INTERVAL).await;
        }
    }

    /// Adds what was counted since the last time to the file, where there is one. What cannot be written is
    /// kept for the next time.
    pub(crate) fn write(&self) {
        let Some(file) = self.file.as_ref().filter(|_| self.ratio > 0.0) else { return };
        let _turn = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.take();
        if let Err(error) = self.add_to(file, &taken) {
            tracing::error!(file = %file.display(), %error, "the usage of fields cannot be written");
            self.give_back(taken);
        }
    }

    /// What was counted. The names stay: they are counted by themselves until they are stale.
    fn take(&self) -> BTreeMap<String, ClientCounts> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |(client, counts): (&String, &mut ClientCounts)| {
            let nothing = self.nothing(counts.seen_seconds);
            (client.clone(), std::mem::replace(counts, nothing))
        };
        counted.iter_mut().map(take).collect()
    }

    fn give_back(&self, taken: BTreeMap<String, ClientCounts>) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        for (client, counts) in taken {
            let own = counted.entry(client).or_insert_with(|| self.nothing(counts.seen_seconds));
            own.fields.iter_mut().zip(counts.fields).for_each(|(own, used)| own.add(used));
        }
    }

    fn add_to(&self, file: &Path, taken: &BTreeMap<String, ClientCounts>) -> io::Result<()> {
        let now = clock::now().timestamp();
        let mut sum = match read_one(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.begun(now),
            read => read?,
        };
        sum.until_seconds = now;
        // Each start of a process may bring other names: those of the file are bounded, too. By when they were seen:
        let mut names: BTreeMap<String, i64> = BTreeMap::new();
        for (client, used) in sum.fields.values().flatten().filter(|(client, _)| *client != OTHER) {
            let seen = names.entry(client.clone()).or_default();
            *seen = (*seen).max(used.last_used_seconds);
        }
        let is_used = |counts: &ClientCounts| counts.fields.iter().any(|used| used.operations > 0.0);
        let taken = || taken.iter().filter(|(_, counts)| is_used(counts));
        for (client, counts) in taken() {
            names.entry(client.clone()).and_modify(|seen| *seen = (*seen).max(counts.seen_seconds));
        }
        for (client, counts) in taken() {
            let mut has_place = names.contains_key(client) || names.len() < MOST_CLIENTS;
            if !has_place
                && client != OTHER
                && let Some(stale) = stale(names.iter().map(|(name, seen)| (name, *seen)), now)
            {
                // What it asked for stays in the file, as what others asked for.
                sum.merge_into_other(&stale);
                names.remove(&stale);
                has_place = true;
            }
            let client = if has_place { client } else { OTHER };
            if client != OTHER {
                names.insert(client.to_owned(), counts.seen_seconds);
            }
            for (field, used) in self.coordinates.all().iter().zip(&counts.fields) {
                if used.operations > 0.0 {
                    let clients = sum.fields.entry(field.name.clone()).or_default();
                    clients.entry(client.to_owned()).or_default().add(*used);
                }
            }
        }
        usage::replace(file, &serde_json::to_string(&sum)?)?;
        // A file that is taken away now begins now.
        self.since_seconds.store(now, Ordering::Relaxed);
        Ok(())
    }

    /// A file that has nothing yet.
    fn begun(&self, now: i64) -> FieldUsages {
        let since_seconds = self.since_seconds.load(Ordering::Relaxed);
        FieldUsages { since_seconds, until_seconds: now, fields: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use async_graphql::parser::parse_schema;
    use tempfile::tempdir;

    use super::*;
    use crate::config::{Config, setting::Ratio};

    const SDL: &str = "type Query { me: User } type User { name: String nick: String @deprecated }";
    /// Their places in the order of names.
    const ME: u32 = 0;
    const NAME: u32 = 1;
    const NICK: u32 = 2;

    fn counting(ratio: f64, file: Option<&Path>) -> (FieldUsage, Registry) {
        let mut config = Config::default().telemetry;
        config.field_usage = Ratio(ratio);
        config.field_usage_file = file.map(Path::to_owned);
        let (coordinates, mut registry) =
            (Coordinates::of(&parse_schema(SDL).expect("SDL")), Registry::default());
        (FieldUsage::new(&config, Arc::new(coordinates), &mut registry), registry)
    }

    fn series(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).expect("metrics are text");
        text.lines().filter(|line| line.starts_with("graphql_")).map(ToOwned::to_owned).collect()
    }

    fn used(file: &Path, coordinate: &str) -> BTreeMap<String, f64> {
        let usages = read_one(file).expect("a file");
        let clients = usages.fields.get(coordinate).cloned().unwrap_or_default();
        clients.into_iter().map(|(client, used)| (client, used.operations)).collect()
    }

    #[test]
    fn fields_are_counted_by_client_and_go_on_in_the_file() {
        let folder = tempdir().expect("a folder");
        let file = folder.path().join("fields.json");
        for _ in 0..2 {
            let (usage, registry) = counting(0.5, Some(&file));
            usage.count(&[ME, NAME], Some("web"));
            usage.count(&[ME, NICK], Some("web"));
            usage.count(&[ME], None);
            usage.write();
            usage.write();
            let expected =
                "graphql_deprecated_field_operations_total{coordinate=\"User.nick\",client=\"web\"} 2.0";
            assert_eq!(series(&registry), [expected], "deprecated fields alone");
        }
        assert_eq!(used(&file, "Query.me"), [("unknown".into(), 4.0), ("web".into(), 8.0)].into());
        assert_eq!(used(&file, "User.name"), [("web".into(), 4.0)].into());
        let now = clock::now().timestamp();
        let usages = read_one(&file).expect("a file");
        let FieldUse { last_used_seconds, .. } = usages.fields["User.nick"]["web"];
        assert!((now - 600..=now).contains(&last_used_seconds), "{usages:?}");
        assert!(usages.since_seconds <= usages.until_seconds && now - 600 < usages.since_seconds);
    }

    #[test]
    fn names_of_clients_are_bounded_in_a_process_and_in_its_file() {
        let folder = tempdir().expect("a folder");
        let file = folder.path().join("fields.json");
        for process in 0..2 {
            let (usage, registry) = counting(1.0, Some(&file));
            for client in 0..200 {
                usage.count(&[NICK], Some(&format!("{process}-{client}")));
                // What is written is not begun anew.
                usage.write();
            }
            assert_eq!(series(&registry).len(), MOST_CLIENTS + 1);
            let clients = used(&file, "User.nick");
            assert_eq!(clients.len(), MOST_CLIENTS + 1);
            let all = clients.values().sum::<f64>().round() as u64;
            assert_eq!(all, 200 * (process + 1), "all are counted");
        }
        let (usage, _) = counting(1.0, Some(&folder.path().join("long.json")));
        usage.count(&[ME], Some(&"é".repeat(65)));
        usage.write();
        let clients = used(&folder.path().join("long.json"), "Query.me");
        assert_eq!(clients.into_keys().collect::<Vec<_>>(), ["é".repeat(64)]);
    }

    #[test]
    fn who_was_not_seen_for_long_gives_its_place_to_another_client() {
        const DAY: i64 = 24 * 60 * 60;
        let folder = tempdir().expect("a folder");
        let file = folder.path().join("fields.json");
        let now = clock::now().timestamp();
        let (usage, registry) = counting(1.0, Some(&file));
        for client in 0..MOST_CLIENTS {
            let days = if client == 7 { 31 } else { 29 };
            usage.count_at(&[NICK], Some(&format!("old-{client}")), now - days * DAY);
        }
        usage.write();
        // In the process as in the file, and as often as there is somebody stale.
        usage.count_at(&[NICK], Some("new"), now);
        usage.count_at(&[NICK], Some("newer"), now);
        assert_eq!(series(&registry).len(), MOST_CLIENTS + 1, "{:?}", series(&registry));
        usage.write();
        let expect = |clients: BTreeMap<String, f64>| {
            let named = |client: &str| clients.get(client).copied();
            assert_eq!(clients.len(), MOST_CLIENTS + 1, "{clients:?}");
            assert_eq!([named("new"), named("newer"), named("old-7")], [Some(1.0), None, None]);
            assert_eq!((named("old-8"), named(OTHER)), (Some(1.0), Some(2.0)), "all are counted");
        };
        expect(used(&file, "User.nick"));
        // Another process finds the same names in the file.
        let (usage, _) = counting(1.0, Some(&file));
        usage.count(&[ME], Some("newest"));
        usage.write();
        expect(used(&file, "User.nick"));
        assert_eq!(used(&file, "Query.me"), [(OTHER.to_owned(), 1.0)].into());
    }

    #[test]
    fn what_cannot_be_written_is_written_later() {
        let folder = tempdir().expect("a folder");
        let file = folder.path().join("later").join("fields.json");
        let (usage, _) = counting(1.0, Some(&file));
        usage.count(&[ME], Some("web"));
        usage.write();
        fs::create_dir(folder.path().join("later")).expect("made");
        usage.count(&[ME], Some("web"));
        usage.write();
        assert_eq!(used(&file, "Query.me"), [("web".into(), 2.0)].into());
    }

    #[test]
    fn a_share_of_operations_is_sampled() {
        let folder = tempdir().expect("a folder");
        let file = folder.path().join("fields.json");
        for (ratio, expected) in [(0.0, 0..=0), (0.1, 8_000..=12_000), (1.0, 100_000..=100_000)] {
            let (usage, _) = counting(ratio, Some(&file));
            let sampled = (0..100_000).filter(|_| usage.is_sampled()).count();
            assert!(expected.contains(&sampled), "{ratio}: {sampled}");
        }
        let (usage, _) = counting(0.0, Some(&file));
        usage.write();
        assert!(!file.exists(), "it is off");
    }
}
