//! Erases what is stored of one person. First the account: from then on nobody can sign in to it, no token is good, and
//! nothing names the person. Then all else, a chunk at a time, so that nobody waits for long; what is found next is
//! always what is left, so that a run which was cut off is completed by the next one. Requests that were under way when
//! the account was blocked may store something behind it: once they have ended it is looked again.
//!
//! What belongs to the organisation stays: forms, and submissions unless their removal is asked for; their account has
//! no name any more. Caches are told in the transactions that change something.
//!
//! Records of requests with an idempotency key are answers, in which anybody may have been told of the person. Those of
//! the person go; of the others only the answer does, and is made anew from what is stored if the request comes again.
//! They are looked through before the account has lost its name, which they are found by.

use std::{collections::BTreeSet, time::Duration};

use chrono::TimeDelta;
use sea_orm::{
    Condition, QuerySelect as _, QueryTrait as _,
    entity::prelude::*,
    sea_query::{Func, SimpleExpr},
};
use tokio::time::Instant;

use crate::{
    activity,
    auth::revocation::POLL,
    clock::{self, Time},
    database::sql::{Json, is_storable},
    error::{Error, pause_before},
    form,
    id::{NodeKind, UserId},
    idempotency, location,
    retention::{BREATH, Stopped, Upkeep},
    session,
    store::{Store, transaction::Transaction},
    submission,
    user::erase::{self as account, Erasability, Erasable},
    webhook,
};

mod chunks;

/// How long it is waited for a table whose rows are moved, or whose schema is changed.
const TURN_WITHIN: Duration = Duration::from_mins(5);
/// Between two tries.
const TURN_AGAIN: Duration = Duration::from_millis(100);

/// What becomes of the submissions of the person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SubmissionPolicy {
    /// They stay, without the device and the position that they came from.
    #[default]
    Keep,
    /// They are removed.
    Delete,
}

/// How something is erased.
#[derive(Clone, Copy, Debug)]
pub struct ErasePlan {
    /// What becomes of submissions.
    pub submissions: SubmissionPolicy,
    /// The advisory lock of who changes the schema.
    pub schema_lock: i64,
    /// How long a request may take that was under way when the account was blocked.
    pub request_timeout: Duration,
}

/// How many rows were removed or emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErasedRows {
    /// Accounts that lost their name: this one, unless it had before.
    pub accounts: u64,
    /// Sessions that were removed.
    pub sessions: u64,
    /// Positions that were removed, and the newest one, which is kept beside them.
    pub locations: u64,
    /// Submissions that were removed.
    pub submissions_removed: u64,
    /// Submissions that do not say any more on which device and where they were filled in.
    pub submissions_emptied: u64,
    /// Entries of the activity log whose details were emptied.
    pub activity_logs: u64,
    /// Webhooks that were removed.
    pub webhooks: u64,
    /// Deliveries of these webhooks that were removed.
    pub deliveries: u64,
    /// Records of the person's requests with an idempotency key that were removed.
    pub keyed_requests: u64,
    /// Records of others' requests whose answer was emptied.
    pub keyed_answers: u64,
    /// Forms of the account, which stay.
    pub forms_kept: u64,
    /// Submissions of the account that stay.
    pub submissions_kept: u64,
}

/// What erasing came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Erased {
    /// There is no such account.
    NotFound,
    /// Nobody else could make another administrator: nothing was done.
    LastAdministrator,
    /// So much was erased.
    Rows(ErasedRows),
}

/// Erases what is stored of the person of an account.
///
/// # Errors
/// The database's. What is erased so far stays so; once more does the rest.
pub async fn erase(store: &Store, user: UserId, plan: ErasePlan) -> Result<Erased, Error> {
    let erasable = match account::look(store, user).await? {
        Erasability::NotFound => return Ok(Erased::NotFound),
        Erasability::LastAdministrator => return Ok(Erased::LastAdministrator),
        Erasability::Erasable(erasable) => erasable,
    };
    let eraser = Eraser::new(store, user, plan, &erasable);
    let mut rows = ErasedRows { keyed_answers: eraser.empty_answers().await?, ..ErasedRows::default() };
    let blocked_at = match account::erase(store, user).await? {
        Erasability::NotFound => return Ok(Erased::NotFound),
        Erasability::LastAdministrator => return Ok(Erased::LastAdministrator),
        Erasability::Erasable(Erasable { erased_at: Some(before), .. }) => before,
        Erasability::Erasable(_) => {
            rows.accounts = 1;
            clock::now()
        }
    };
    let began = clock::now();
    eraser.sweep(&mut rows).await?;
    if eraser.await_requests(blocked_at, began).await? {
        eraser.sweep(&mut rows).await?;
    }
    rows.forms_kept = eraser.count("form.count_of_erased", eraser.forms()).await?;
    rows.submissions_kept = eraser.count("submission.count_of_erased", eraser.submissions()).await?;
    Ok(Erased::Rows(rows))
}

/// Counts what `erase` would do, and changes nothing.
///
/// # Errors
/// The database's.
pub async fn preview(store: &Store, user: UserId, plan: ErasePlan) -> Result<Erased, Error> {
    let erasable = match account::look(store, user).await? {
        Erasability::NotFound => return Ok(Erased::NotFound),
        Erasability::LastAdministrator => return Ok(Erased::LastAdministrator),
        Erasability::Erasable(erasable) => erasable,
    };
    let eraser = Eraser::new(store, user, plan, &erasable);
    let mut rows = ErasedRows {
        accounts: u64::from(erasable.erased_at.is_none()),
        sessions: eraser.count("session.count_of_erased", eraser.sessions()).await?,
        locations: eraser.count("location.count_of_erased", eraser.locations()).await?,
        activity_logs: eraser.count("activity.count_of_erased", eraser.details()).await?,
        webhooks: eraser.count("webhook.count_of_erased", eraser.webhooks()).await?,
        keyed_requests: eraser.count("idempotency.count_of_erased", eraser.keyed_requests()).await?,
        forms_kept: eraser.count("form.count_of_erased", eraser.forms()).await?,
        ..ErasedRows::default()
    };
    rows.locations += eraser.count("location.count_last_of_erased", eraser.last_locations()).await?;
    let of_webhooks = eraser.webhooks().select_only().column(webhook::Column::Id).into_query();
    let deliveries = webhook::delivery::Entity::find()
        .filter(webhook::delivery::Column::WebhookId.in_subquery(of_webhooks));
    rows.deliveries = eraser.count("webhook_delivery.count_of_erased", deliveries).await?;
    let mut last = None;
    while let Some(page) = eraser.answers_after(last).await? {
        rows.keyed_answers += page.named.len() as u64;
        last = Some(page.last);
    }
    let submissions = eraser.count("submission.count_of_erased", eraser.submissions()).await?;
    match plan.submissions {
        SubmissionPolicy::Delete => rows.submissions_removed = submissions,
        SubmissionPolicy::Keep => {
            let traced = eraser.submissions().filter(is_traced());
            rows.submissions_emptied = eraser.count("submission.count_traced", traced).await?;
            rows.submissions_kept = submissions;
        }
    }
    Ok(Erased::Rows(rows))
}

/// Erases what is stored of one account.
struct Eraser<'a> {
    store: &'a Store,
    user: UserId,
    plan: ErasePlan,
    /// What answers are searched for, as it stands in JSON.
    names: BTreeSet<String>,
}

/// The time and id of the last row of a chunk: what comes after it is next.
type ChunkEnd = Option<(Time, Uuid)>;

/// Some records of requests.
struct AnswerPage {
    last: Uuid,
    /// Those of others with an answer that names the person.
    named: Vec<Uuid>,
}

/// Which submissions say on which device or where they were filled in.
fn is_traced() -> Condition {
    let (session, location) = (submission::Column::SessionId, submission::Column::LocationId);
    Condition::any().add(session.is_not_null()).add(location.is_not_null())
}

/// What entries of the activity log are about that is the organisation's: their details name nobody.
const OF_ORGANISATION: [NodeKind; 5] = [
    NodeKind::Form,
    NodeKind::FormVersion,
    NodeKind::Submission,
    NodeKind::Webhook,
    NodeKind::WebhookDelivery,
];

impl<'a> Eraser<'a> {
    fn new(store: &'a Store, user: UserId, plan: ErasePlan, account: &Erasable) -> Self {
        let mut names = BTreeSet::from([user.to_string()]);
        if account.erased_at.is_none() {
            for name in [&account.email, &account.display_name] {
                let written = serde_json::Value::from(name.as_str()).to_string();
                // Without the quotes around it.
                names.insert(written[1..written.len() - 1].to_owned());
            }
        }
        names.retain(|name| !name.is_empty() && is_storable(name));
        Self { store, user, plan, names }
    }

    /// Removes and empties all that is found.
    async fn sweep(&self, rows: &mut ErasedRows) -> Result<(), Error> {
        let (webhooks, deliveries) = self.remove_webhooks().await?;
        rows.webhooks += webhooks;
        rows.deliveries += deliveries;
        rows.sessions += self.repeat(async |end| self.remove_sessions(end).await).await?;
        rows.locations += self.repeat(async |_| self.remove_last_location().await).await?;
        rows.locations += self.repeat(async |end| self.remove_locations(end).await).await?;
        match self.plan.submissions {
            SubmissionPolicy::Keep => {
                rows.submissions_emptied +=
                    self.repeat(async |end| self.empty_submissions(end).await).await?;
            }
            SubmissionPolicy::Delete => {
                rows.submissions_removed +=
                    self.repeat(async |end| self.remove_submissions(end).await).await?;
            }
        }
        rows.activity_logs += self.repeat(async |end| self.empty_details(end).await).await?;
        rows.keyed_requests += self.repeat(async |_| self.remove_keyed_requests().await).await?;
        rows.keyed_answers += self.empty_answers().await?;
        Ok(())
    }

    /// Does a chunk after the other, each from where the one before has ended, and one that met others again, until a
    /// look from the start finds nothing; how many rows it was in all.
    async fn repeat(
        &self,
        chunk: impl AsyncFn(&mut ChunkEnd) -> Result<Option<u64>, Error>,
    ) -> Result<u64, Error> {
        let (mut all, mut since_start, mut number, mut end) = (0, 0, 1, None);
        loop {
            match chunk(&mut end).await {
                Ok(None) if since_start == 0 => return Ok(all),
                Ok(None) => (since_start, end) = (0, None),
                Ok(Some(rows)) => (all, since_start, number) = (all + rows, since_start + rows, 1),
                Err(error) if error.repeats() >= number => {
                    tokio::time::sleep(pause_before(number)).await;
                    number += 1;
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(BREATH).await;
        }
    }

    /// Waits until no request is under way that began before the account was blocked; false where all of them had
    /// ended before the first look began, or no server runs.
    async fn await_requests(&self, blocked_at: Time, began: Time) -> Result<bool, Error> {
        // Each server knows within a poll that the account's tokens are not good any more.
        let longest = TimeDelta::from_std(self.plan.request_timeout.saturating_add(POLL * 2));
        let ended = longest.ok().and_then(|longest| blocked_at.checked_add_signed(longest));
        let Some(ended) = ended.filter(|ended| began < *ended) else { return Ok(false) };
        if self.store.count_instances().await?.all == 0 {
            return Ok(false);
        }
        tokio::time::sleep((ended - clock::now()).to_std().unwrap_or_default()).await;
        Ok(true)
    }

    /// Begins to change rows that may be copied into partitions now: the copies would bring them back.
    async fn begin_in_turn(&self, table: &'static str) -> Result<Transaction, Error> {
        let upkeep = Upkeep { store: self.store, schema_lock: self.plan.schema_lock };
        let began = Instant::now();
        loop {
            match upkeep.begin(table).await {
                Ok(transaction) => return Ok(transaction),
                Err(Stopped::Failed(error)) => return Err(error),
                Err(Stopped::NotItsTurn) if began.elapsed() < TURN_WITHIN => {
                    tokio::time::sleep(TURN_AGAIN).await;
                }
                Err(Stopped::NotItsTurn) => {
                    return Err(Error::Refused(format!(
                        "others have been changing the schema, or moving rows of {table} into partitions, \
                         for five minutes; erase the account again later, which does the rest"
                    )));
                }
            }
        }
    }

    async fn count<E: EntityTrait>(&self, name: &'static str, rows: Select<E>) -> Result<u64, Error> {
        let number: SimpleExpr = Func::count(Expr::cust("*")).into();
        let count = rows.select_only().expr(number);
        let counted: Vec<i64> = self.store.database().column(name, E::default(), &count).await?;
        Ok(counted.first().copied().unwrap_or_default().unsigned_abs())
    }
}

/// What is the person's.
impl Eraser<'_> {
    fn sessions(&self) -> Select<session::Entity> {
        session::Entity::find().filter(session::Column::UserId.eq(self.user))
    }

    fn locations(&self) -> Select<location::Entity> {
        location::Entity::find().filter(location::Column::UserId.eq(self.user))
    }

    fn last_locations(&self) -> Select<location::last::Entity> {
        location::last::Entity::find().filter(location::last::Column::UserId.eq(self.user))
    }

    fn forms(&self) -> Select<form::Entity> {
        form::Entity::find().filter(form::Column::OwnerId.eq(self.user))
    }

    fn submissions(&self) -> Select<submission::Entity> {
        submission::Entity::find().filter(submission::Column::UserId.eq(self.user))
    }

    fn webhooks(&self) -> Select<webhook::Entity> {
        webhook::Entity::find().filter(webhook::Column::OwnerId.eq(self.user))
    }

    fn keyed_requests(&self) -> Select<idempotency::Entity> {
        idempotency::Entity::find().filter(idempotency::Column::UserId.eq(self.user))
    }

    /// Entries of the activity log with details of the person.
    fn details(&self) -> Select<activity::Entity> {
        use activity::Column;
        let theirs =
            Condition::any().add(Column::UserId.eq(self.user)).add(Column::SubjectId.eq(self.user.0));
        let about = Column::SubjectType.is_not_in(OF_ORGANISATION.map(NodeKind::as_str));
        activity::Entity::find()
            .filter(theirs)
            .filter(Condition::any().add(Column::SubjectType.is_null()).add(about))
            .filter(Column::Metadata.ne(Json::from(&serde_json::json!({}))))
    }
}
