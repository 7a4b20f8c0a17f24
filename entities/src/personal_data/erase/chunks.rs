//! The chunks in which a person's data is erased: each finds what is next and changes it in one transaction,
//! which tells the caches. Not here: in which order, and what is the person's (`erase`).

use std::collections::BTreeSet;

use sea_orm::{
    Condition, QueryOrder as _, QuerySelect as _, Set,
    entity::prelude::*,
    sea_query::{LikeExpr, Value},
};

use super::{super::in_order, AnswerPage, ChunkEnd, Eraser, is_traced};
use crate::{
    activity,
    cache::Tag,
    clock::{self, Time},
    database::sql::{Cells, ESCAPE, Json, containing},
    error::{Error, pause_before},
    events::{ChangeEvent, Removal},
    id::{ActivityLogId, FormId, LocationId, NodeKind, SessionId, SubmissionId, UserId, WebhookId},
    idempotency, location,
    retention::{BREATH, CHUNK},
    session,
    store::transaction::Transaction,
    submission, webhook,
};

/// A chunk of each: how many rows; none where none is left.
impl Eraser<'_> {
    pub(super) async fn remove_sessions(&self, end: &mut ChunkEnd) -> Result<Option<u64>, Error> {
        use session::{Column, Entity};
        let find = self.sessions().select_only().columns([Column::Id, Column::CreatedAt]);
        let find = in_order(find, [Column::CreatedAt, Column::Id], key(*end)).limit(CHUNK);
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<SessionId>()?, cells.next::<Time>()?));
        let found = self.store.database().rows("session.of_erased", Entity, &find, read).await?;
        let Some((last, last_at)) = found.last() else { return Ok(None) };
        let ids: Vec<SessionId> = found.iter().map(|(id, _)| *id).collect();
        let mut transaction = Transaction::begin(self.store).await?;
        let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, &ids));
        let removed = transaction.write("session.erase", Entity, &delete).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::Sessions });
        let kind = NodeKind::Session.as_str();
        transaction.invalidates(Tag::List(kind, "user", self.user.0));
        for id in &ids {
            transaction.invalidates(Tag::Row(kind, id.0));
        }
        transaction.commit_unlogged().await?;
        *end = Some((*last_at, last.0));
        Ok(Some(removed))
    }

    /// Before the history that it is from: what is shown as the newest position is in there.
    pub(super) async fn remove_last_location(&self) -> Result<Option<u64>, Error> {
        use location::last::{Column, Entity};
        if self.count("location.count_last_of_erased", self.last_locations()).await? == 0 {
            return Ok(None);
        }
        let mut transaction = self.begin_in_turn(location::Entity.table_name()).await?;
        let delete = Entity::delete_many().filter(Column::UserId.eq(self.user));
        let removed = transaction.write("location.erase_last", Entity, &delete).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::Locations });
        transaction.invalidates(Tag::List(NodeKind::Location.as_str(), "user", self.user.0));
        transaction.commit_unlogged().await?;
        Ok(Some(removed))
    }

    pub(super) async fn remove_locations(&self, end: &mut ChunkEnd) -> Result<Option<u64>, Error> {
        use location::{Column, Entity};
        let oldest = self.locations().select_only().columns([Column::Id, Column::Timestamp]);
        let oldest = in_order(oldest, [Column::Timestamp, Column::Id], key(*end)).limit(CHUNK);
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<LocationId>()?, cells.next::<Time>()?));
        let found = self.store.database().rows("location.of_erased", Entity, &oldest, read).await?;
        let (Some((_, first_at)), Some((last, last_at))) = (found.first(), found.last()) else {
            return Ok(None);
        };
        let ids: Vec<LocationId> = found.iter().map(|(id, _)| *id).collect();
        let mut transaction = self.begin_in_turn(Entity.table_name()).await?;
        let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, &ids)).filter(months(
            &transaction,
            Column::Timestamp,
            *first_at,
            *last_at,
        ));
        let removed = transaction.write("location.erase", Entity, &delete).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::Locations });
        transaction.commit_unlogged().await?;
        *end = Some((*last_at, last.0));
        Ok(Some(removed))
    }

    pub(super) async fn remove_submissions(&self, end: &mut ChunkEnd) -> Result<Option<u64>, Error> {
        let found = self.some_submissions(self.submissions(), *end).await?;
        let Some(last) = found.last() else { return Ok(None) };
        let mut transaction = Transaction::begin(self.store).await?;
        let ids: Vec<SubmissionId> = found.iter().map(|found| found.id).collect();
        let delete =
            submission::Entity::delete_many().filter(transaction.is_any(submission::Column::Id, &ids));
        let removed = transaction.write("submission.erase", submission::Entity, &delete).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::Submissions });
        invalidate(&mut transaction, self.user, &found);
        transaction.commit_unlogged().await?;
        *end = Some((last.created_at, last.id.0));
        Ok(Some(removed))
    }

    pub(super) async fn empty_submissions(&self, end: &mut ChunkEnd) -> Result<Option<u64>, Error> {
        let found = self.some_submissions(self.submissions().filter(is_traced()), *end).await?;
        let Some(last) = found.last() else { return Ok(None) };
        let mut transaction = Transaction::begin(self.store).await?;
        let ids: Vec<SubmissionId> = found.iter().map(|found| found.id).collect();
        let emptied =
            submission::ActiveModel { session_id: Set(None), location_id: Set(None), ..Default::default() };
        let update = submission::Entity::update_many()
            .set(emptied)
            .filter(transaction.is_any(submission::Column::Id, &ids));
        let changed = transaction.write("submission.erase_origin", submission::Entity, &update).await?;
        // What was read by way of them was removed; no submission was.
        for of in [Removal::Sessions, Removal::Locations] {
            transaction.changed(ChangeEvent::Removed { of });
        }
        invalidate(&mut transaction, self.user, &found);
        transaction.commit_unlogged().await?;
        *end = Some((last.created_at, last.id.0));
        Ok(Some(changed))
    }

    /// The next of these submissions.
    async fn some_submissions(
        &self,
        which: Select<submission::Entity>,
        end: ChunkEnd,
    ) -> Result<Vec<ErasedSubmission>, Error> {
        use submission::{Column, Entity};
        let find = which.select_only().columns([Column::Id, Column::FormId, Column::CreatedAt]);
        let find = in_order(find, [Column::CreatedAt, Column::Id], key(end)).limit(CHUNK);
        let read = |cells: &mut Cells<'_>| {
            Ok(ErasedSubmission { id: cells.next()?, form: cells.next()?, created_at: cells.next()? })
        };
        self.store.database().rows("submission.of_erased", Entity, &find, read).await
    }

    pub(super) async fn empty_details(&self, end: &mut ChunkEnd) -> Result<Option<u64>, Error> {
        use activity::{Column, Entity};
        let find = self.details().select_only().columns([Column::Id, Column::CreatedAt]);
        let find = in_order(find, [Column::CreatedAt, Column::Id], key(*end)).limit(CHUNK);
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<ActivityLogId>()?, cells.next::<Time>()?));
        let found = self.store.database().rows("activity.of_erased", Entity, &find, read).await?;
        let (Some((_, first_at)), Some((last, last_at))) = (found.first(), found.last()) else {
            return Ok(None);
        };
        let ids: Vec<ActivityLogId> = found.iter().map(|(id, _)| *id).collect();
        let mut transaction = self.begin_in_turn(Entity.table_name()).await?;
        let emptied =
            activity::ActiveModel { metadata: Set(Json::from(&serde_json::json!({}))), ..Default::default() };
        let update = Entity::update_many()
            .set(emptied)
            .filter(transaction.is_any(Column::Id, &ids))
            .filter(months(&transaction, Column::CreatedAt, *first_at, *last_at));
        let changed = transaction.write("activity.erase", Entity, &update).await?;
        transaction.changed(ChangeEvent::Removed { of: Removal::ActivityLogs });
        transaction.commit_unlogged().await?;
        *end = Some((*last_at, last.0));
        Ok(Some(changed))
    }

    /// Removes the webhooks, and before each what it was to be told: how many of both.
    pub(super) async fn remove_webhooks(&self) -> Result<(u64, u64), Error> {
        let find = self.webhooks().select_only().column(webhook::Column::Id);
        let found = self.store.database().column("webhook.of_erased", webhook::Entity, &find).await?;
        let (mut removed, mut deliveries) = (0, 0);
        for id in found {
            deliveries += self.repeat(async |_| self.remove_deliveries(id).await).await?;
            removed += self.remove_webhook(id).await?;
            deliveries += self.repeat(async |_| self.remove_deliveries(id).await).await?;
        }
        Ok((removed, deliveries))
    }

    async fn remove_webhook(&self, id: WebhookId) -> Result<u64, Error> {
        let mut number = 1;
        loop {
            match webhook::write::delete_of_erased(self.store, id).await {
                Err(error) if error.repeats() >= number => tokio::time::sleep(pause_before(number)).await,
                removed => return Ok(u64::from(removed?.is_ok())),
            }
            number += 1;
        }
    }

    async fn remove_deliveries(&self, id: WebhookId) -> Result<Option<u64>, Error> {
        let transaction = Transaction::begin(self.store).await?;
        let removed = webhook::delivery::remove_of(&transaction, id, CHUNK).await?;
        transaction.commit_unlogged().await?;
        Ok((removed > 0).then_some(removed))
    }

    pub(super) async fn remove_keyed_requests(&self) -> Result<Option<u64>, Error> {
        use idempotency::{Column, Entity};
        let find = self.keyed_requests().select_only().column(Column::Id).limit(CHUNK);
        let ids: Vec<Uuid> = self.store.database().column("idempotency.of_erased", Entity, &find).await?;
        if ids.is_empty() {
            return Ok(None);
        }
        let transaction = Transaction::begin(self.store).await?;
        let delete = Entity::delete_many().filter(transaction.is_any(Column::Id, &ids));
        let removed = transaction.write("idempotency.erase", Entity, &delete).await?;
        transaction.commit_unlogged().await?;
        Ok(Some(removed))
    }

    /// Takes the answers out of others' records that name the person; how many.
    pub(super) async fn empty_answers(&self) -> Result<u64, Error> {
        use idempotency::{ActiveModel, Column, Entity};
        let (mut emptied, mut last) = (0, None);
        while let Some(page) = self.answers_after(last).await? {
            last = Some(page.last);
            if page.named.is_empty() {
                continue;
            }
            let transaction = Transaction::begin(self.store).await?;
            let none = ActiveModel {
                answer: Set(None),
                codes: Set(None),
                cache_token: Set(None),
                // Its first run has ended with the answer: the same request may run again at once.
                claimed_until: Set(clock::now()),
                ..Default::default()
            };
            let update = Entity::update_many()
                .set(none)
                .filter(transaction.is_any(Column::Id, &page.named))
                .filter(Column::Answer.is_not_null());
            emptied += transaction.write("idempotency.erase_answer", Entity, &update).await?;
            transaction.commit_unlogged().await?;
            tokio::time::sleep(BREATH).await;
        }
        Ok(emptied)
    }

    /// The records of requests after this one; none where there are no more. The database looks through the answers.
    pub(super) async fn answers_after(&self, last: Option<Uuid>) -> Result<Option<AnswerPage>, Error> {
        use idempotency::{Column, Entity};
        let has = |column: Column, text: &String| column.like(LikeExpr::new(containing(text)).escape(ESCAPE));
        let named = self.names.iter().fold(Condition::any(), |any, name| any.add(has(Column::Answer, name)));
        let named = named.add(has(Column::Stored, &self.user.to_string()));
        let others = Condition::any().add(Column::UserId.is_null()).add(Column::UserId.ne(self.user));
        let is_named = Condition::all().add(Column::Answer.is_not_null()).add(others).add(named);
        let next = Entity::find()
            .select_only()
            .column(Column::Id)
            .expr(is_named)
            .filter(Column::Id.gt(last.unwrap_or_default()))
            .order_by_asc(Column::Id)
            .limit(CHUNK);
        let read = |cells: &mut Cells<'_>| Ok((cells.next::<Uuid>()?, cells.next::<bool>()?));
        let found = self.store.database().rows("idempotency.answers", Entity, &next, read).await?;
        let Some((last, _)) = found.last() else { return Ok(None) };
        let named = found.iter().filter(|(_, is_named)| *is_named).map(|(id, _)| *id).collect();
        Ok(Some(AnswerPage { last: *last, named }))
    }
}

/// A submission that is removed or emptied.
struct ErasedSubmission {
    id: SubmissionId,
    form: FormId,
    created_at: Time,
}

/// The time and the id of the last row of a chunk.
fn key(end: ChunkEnd) -> Option<[Value; 2]> {
    end.map(|(time, id)| [time.into(), id.into()])
}

/// Between these times: of the partitions only those of these months are looked at. SQLite has none.
fn months(transaction: &Transaction, column: impl ColumnTrait, first: Time, last: Time) -> Condition {
    let is_parted = transaction.sql().is_postgres();
    Condition::all().add_option(is_parted.then(|| column.between(first, last)))
}

/// What is cached of these submissions of a user, and of lists and counts that they are in.
fn invalidate(transaction: &mut Transaction, user: UserId, submissions: &[ErasedSubmission]) {
    let kind = NodeKind::Submission.as_str();
    transaction.invalidates(Tag::List(kind, "user", user.0));
    let forms: BTreeSet<FormId> = submissions.iter().map(|submission| submission.form).collect();
    for form in forms {
        transaction.invalidates(Tag::List(kind, "form", form.0));
    }
    for submission in submissions {
        transaction.invalidates(Tag::Row(kind, submission.id.0));
    }
}
