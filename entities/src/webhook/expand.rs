//! From events to deliveries: reads the log for all webhooks, and notes for each event who is to be told, in
//! the transaction that moves the position of the reader. So each event makes its deliveries once, in the
//! order of the log, whichever instance does it. The reader ends when no webhook is enabled, so that the log
//! costs nothing then. Not here: who may see what a delivery is about when it is sent (`subject`).

use rustc_hash::{FxHashMap, FxHashSet};
use sea_orm::{Set, entity::prelude::*};

use super::{CONSUMER, WebhookEvent, delivery, events_of, lane, may_hear};
use crate::{
    clock::{self, Time},
    database::{
        Database,
        role::Role,
        sql::{Cells, Sql},
        transaction::SqlTransaction,
    },
    error::Error,
    events::{
        ChangeEvent,
        consumer::{self, Consumer, Taken},
        log::{self, EventPosition, LoggedChanges},
    },
    id::{FormId, UserId, WebhookDeliveryId, WebhookId},
    store::Store,
};
use delivery::DeliveryStatus;

/// Deliveries that one statement stores.
const CHUNK: usize = 500;

/// Reads the log for all webhooks, one step at a time.
#[derive(Debug)]
pub struct Expander {
    store: Store,
    consumer: Consumer,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expanded {
    /// No webhook is enabled.
    Unused,
    /// Nothing is to be read now, or another instance reads.
    Nothing,
    /// There may be more at once; so many deliveries were noted.
    Some(usize),
}

/// Is a change one that webhooks can be told of?
pub fn is_interesting(change: &ChangeEvent) -> bool {
    match change {
        ChangeEvent::Submission { .. } | ChangeEvent::Lagged | ChangeEvent::Unknown => true,
        ChangeEvent::Form { change, .. } => WebhookEvent::of_form(*change).is_some(),
        _ => false,
    }
}

/// An event that somebody may want to be told of.
struct Occurrence {
    event: WebhookEvent,
    form: FormId,
    subject: Uuid,
    at: Time,
    position: EventPosition,
}

impl Occurrence {
    fn of(row: &LoggedChanges) -> impl Iterator<Item = Self> + '_ {
        row.changes.iter().filter_map(|change| {
            let (event, form, subject) = match *change {
                ChangeEvent::Submission { id, form, .. } => (WebhookEvent::SubmissionCreated, form, id.0),
                ChangeEvent::Form { id, change, .. } => (WebhookEvent::of_form(change)?, id, id.0),
                _ => return None,
            };
            Some(Self { event, form, subject, at: row.created_at, position: row.position })
        })
    }
}

/// A webhook that may want some of the events.
struct Listener {
    id: WebhookId,
    owner: UserId,
    role: Role,
    events: Vec<WebhookEvent>,
    /// None: all that its owner may be told of.
    forms: Option<FxHashSet<FormId>>,
    from: (i64, i64),
}

impl Listener {
    fn wants(&self, occurrence: &Occurrence, form_owner: UserId) -> bool {
        let (transaction_id, number, _) = occurrence.position.parts();
        self.events.contains(&occurrence.event)
            && (transaction_id, number) > self.from
            && self.forms.as_ref().is_none_or(|forms| forms.contains(&occurrence.form))
            && may_hear(self.owner, self.role, form_owner)
    }
}

impl Expander {
    /// Of this instance.
    pub fn new(store: Store) -> Self {
        Self { store, consumer: Consumer::new(CONSUMER) }
    }

    /// Does what is to be done next.
    ///
    /// # Errors
    /// The database's: nothing of this step is stored.
    pub async fn step(&mut self) -> Result<Expanded, Error> {
        let done = self.step_once().await;
        if done.is_err() {
            self.consumer.forget();
        }
        done
    }

    async fn step_once(&mut self) -> Result<Expanded, Error> {
        let database = self.store.database().on_primary();
        let rows = match self.consumer.take(&database).await? {
            Taken::Absent => return Ok(Expanded::Unused),
            Taken::Held => return Ok(Expanded::Nothing),
            Taken::Nothing => {
                end_if_unused(&database).await?;
                return Ok(Expanded::Nothing);
            }
            Taken::Lost => return self.begin_anew(&database).await,
            Taken::Rows(rows) => rows,
        };
        let Some(last) = rows.last().map(|row| row.position) else { return Ok(Expanded::Nothing) };
        let occurrences: Vec<Occurrence> = rows.iter().flat_map(Occurrence::of).collect();
        if occurrences.is_empty() {
            self.consumer.pass(&database, last).await?;
            return Ok(Expanded::Some(0));
        }
        let transaction = SqlTransaction::begin(&database).await?;
        if !self.consumer.advance(&transaction, last).await? {
            self.consumer.forget();
            return Ok(Expanded::Nothing);
        }
        let noted = note(&transaction, &occurrences).await?;
        transaction.commit().await?;
        self.consumer.moved(last);
        Ok(Expanded::Some(noted))
    }

    /// What comes next is lost: goes on with what is written from now on.
    async fn begin_anew(&mut self, database: &Database) -> Result<Expanded, Error> {
        let end = log::end(database).await?;
        let transaction = SqlTransaction::begin(database).await?;
        if self.consumer.advance(&transaction, end).await? {
            // What webhooks have noted of another log says nothing of this one.
            let mut sql = transaction.sql();
            sql.push("UPDATE webhooks SET from_transaction_id = 0, from_number = 0");
            transaction.execute("webhook.begin_anew", "webhooks", sql).await?;
            transaction.commit().await?;
            self.consumer.moved(end);
            tracing::warn!(
                "events that webhooks were to be told of are not in the log any more: nothing has \
                 read them for twice retention.events, or another database took over"
            );
        } else {
            self.consumer.forget();
        }
        Ok(Expanded::Some(0))
    }
}

/// Ends the consumer where no webhook is enabled.
async fn end_if_unused(database: &Database) -> Result<(), Error> {
    let is_used = |sql: &mut Sql| {
        sql.push("SELECT 1 FROM webhooks WHERE is_enabled LIMIT 1");
    };
    let mut sql = database.sql();
    is_used(&mut sql);
    if !database.fetch("webhook.enabled", "webhooks", sql, |_| Ok(())).await?.is_empty() {
        return Ok(());
    }
    let transaction = SqlTransaction::begin(database).await?;
    // Whoever enables one locks the consumer before.
    consumer::lock(&transaction, CONSUMER).await?;
    let mut sql = transaction.sql();
    is_used(&mut sql);
    if transaction.fetch("webhook.enabled", "webhooks", sql, |_| Ok(())).await?.is_empty() {
        consumer::end(&transaction, CONSUMER).await?;
        transaction.commit().await?;
    }
    Ok(())
}

/// Notes who is to be told of these; says how many deliveries that makes.
async fn note(transaction: &SqlTransaction, occurrences: &[Occurrence]) -> Result<usize, Error> {
    let forms: FxHashSet<FormId> = occurrences.iter().map(|occurrence| occurrence.form).collect();
    let forms: Vec<FormId> = forms.into_iter().collect();
    let owners = owners_of(transaction, &forms).await?;
    let listeners = listeners(transaction, &forms, &owners).await?;
    if listeners.is_empty() {
        return Ok(0);
    }
    let now = clock::now();
    let mut sequence = delivery::next_sequence(transaction).await?;
    let (mut rows, mut lanes) = (Vec::new(), FxHashSet::default());
    for occurrence in occurrences {
        let Some(form_owner) = owners.get(&occurrence.form) else { continue };
        for listener in listeners.iter().filter(|listener| listener.wants(occurrence, *form_owner)) {
            lanes.insert((listener.id, occurrence.form));
            rows.push(delivery::ActiveModel {
                id: Set(WebhookDeliveryId::new()),
                webhook_id: Set(listener.id),
                form_id: Set(occurrence.form),
                sequence: delivery::take(&mut sequence),
                event: Set(occurrence.event),
                subject_id: Set(occurrence.subject),
                happened_at: Set(occurrence.at),
                status: Set(DeliveryStatus::Pending),
                attempts: Set(0),
                created_at: Set(now),
                ..Default::default()
            });
        }
    }
    let count = rows.len();
    for chunk in rows.chunks(CHUNK) {
        let insert = delivery::Entity::insert_many(chunk.iter().cloned());
        transaction.write("webhook_delivery.insert", delivery::Entity, &insert).await?;
    }
    let mut lanes: Vec<_> = lanes.into_iter().collect();
    // They are locked in the order in which others lock several lanes of a webhook.
    lanes.sort_unstable();
    for chunk in lanes.chunks(CHUNK) {
        lane::wake(transaction, chunk, false).await?;
    }
    Ok(count)
}

async fn owners_of(
    transaction: &SqlTransaction,
    forms: &[FormId],
) -> Result<FxHashMap<FormId, UserId>, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT t.id, t.owner_id").from("forms").push(" WHERE t.id").any_id(forms);
    let read = |cells: &mut Cells<'_>| Ok((cells.next()?, cells.next()?));
    Ok(transaction.fetch("webhook.form_owners", "forms", sql, read).await?.into_iter().collect())
}

/// The webhooks that may want events of these forms.
async fn listeners(
    transaction: &SqlTransaction,
    forms: &[FormId],
    owners: &FxHashMap<FormId, UserId>,
) -> Result<Vec<Listener>, Error> {
    let mut sql = transaction.sql();
    sql.push("SELECT t.webhook_id, t.form_id").from("webhook_forms").push(" WHERE t.form_id").any_id(forms);
    let read = |cells: &mut Cells<'_>| Ok((cells.next::<WebhookId>()?, cells.next::<FormId>()?));
    let mut named = FxHashMap::<WebhookId, FxHashSet<FormId>>::default();
    for (webhook, form) in transaction.fetch("webhook.named_forms", "webhook_forms", sql, read).await? {
        named.entry(webhook).or_default().insert(form);
    }
    let (ids, owners): (Vec<WebhookId>, Vec<UserId>) =
        (named.keys().copied().collect(), owners.values().copied().collect());
    let mut sql = transaction.sql();
    sql.push(
        "SELECT t.id, t.owner_id, u.role, t.events, t.has_all_forms, t.from_transaction_id, t.from_number",
    );
    sql.from("webhooks")
        .push(" JOIN users u ON u.id = t.owner_id WHERE t.is_enabled AND u.is_active AND (t.id");
    sql.any_id(&ids).push(" OR (t.has_all_forms AND (u.role = 'ADMIN' OR t.owner_id").any_id(&owners);
    sql.push(")))");
    let read = |cells: &mut Cells<'_>| {
        let (id, owner, role) = (cells.next::<WebhookId>()?, cells.next()?, cells.next::<Role>()?);
        let (events, has_all_forms) = (events_of(&cells.next::<String>()?), cells.next::<bool>()?);
        let from = (cells.next()?, cells.next()?);
        Ok(Listener { id, owner, role, events, forms: (!has_all_forms).then(FxHashSet::default), from })
    };
    let mut found = transaction.fetch("webhook.listeners", "webhooks", sql, read).await?;
    for listener in &mut found {
        if let Some(forms) = &mut listener.forms {
            *forms = named.remove(&listener.id).unwrap_or_default();
        }
    }
    Ok(found)
}
