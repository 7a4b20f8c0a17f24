//! Recording positions: `recordLocations`, and points as inputs of other mutations. Each point of a batch has its own
//! outcome. Not here: what a plausible point is, and how it is stored (`entities::location::record`).

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use async_graphql::{Enum, ID, InputObject};
use entities::{
    id::LocationId,
    idempotency::{Claim, Stored},
    location::record::{self, Fault, FaultKind, NewPosition, Recorded, RecordedBy},
};
use futures_util::FutureExt as _;
use uuid::Uuid;

use crate::{
    auth::viewer::Grant,
    context::{ContextExt as _, Database},
    graph::{
        edges::Edges as _,
        mutation::{Again, Input, MutationField, MutationResult, Needs, Payload},
        scalar::enum_leaf,
        subgraph::Domain,
        user_error::{UserError, UserErrorCode, UserErrors, of_malformed},
    },
};
use engine::{
    batch::Source as _,
    context::Context,
    edge::Inline,
    error::FieldError,
    object::{Entity, Object},
    scalar::DateTime,
    variables::item::Item,
};

/// The mutations of this file.
pub(crate) fn fields() -> Vec<MutationField> {
    vec![
        MutationField::new(
            "recordLocations",
            "Records positions of the caller's own device, at most 1000, each by itself. A point that was \
             sent before is not stored again.",
            Needs::Granted(Grant::Collect),
            |input, ctx| record(input, ctx).boxed(),
        )
        .again(Again::Once),
    ]
}

/// A position as a device recorded it.
#[derive(InputObject)]
pub struct LocationPointInput {
    /// The device's own name for the point: with the same time it is the same point however often it is sent. Without
    /// it, a point is known by its time and position. At most 200 bytes.
    client_id: Option<ID>,
    /// When the device was there, by its own clock; at most 5 minutes in the future.
    timestamp: DateTime,
    /// Degrees north, -90 to 90 (WGS 84).
    latitude: f64,
    /// Degrees east, -180 to 180 (WGS 84).
    longitude: f64,
    /// Radius in metres in which the device was with 68 % confidence.
    accuracy: Option<f64>,
    /// Metres above the ellipsoid.
    altitude: Option<f64>,
    /// Metres a second.
    speed: Option<f64>,
    /// Degrees clockwise from north, 0 <= heading < 360.
    heading: Option<f64>,
}

impl From<LocationPointInput> for NewPosition {
    fn from(input: LocationPointInput) -> Self {
        let LocationPointInput { latitude, longitude, accuracy, altitude, speed, heading, .. } = input;
        let (client_id, timestamp) = (input.client_id.map(|id| id.0), input.timestamp.0);
        Self { client_id, timestamp, latitude, longitude, accuracy, altitude, speed, heading }
    }
}

/// What is wrong with a point, as errors of the input at `path`.
pub(crate) fn errors_of(faults: Vec<Fault>, path: &[Cow<'static, str>]) -> Vec<UserError> {
    let error = |fault: Fault| {
        let code = match fault.kind {
            FaultKind::Invalid => UserErrorCode::Invalid,
            FaultKind::TooLarge => UserErrorCode::TooLarge,
            FaultKind::TooSmall => UserErrorCode::TooSmall,
        };
        let path = path.iter().cloned().chain([fault.field.into()]).collect();
        UserError { message: fault.rule.into(), code, path, data: None }
    };
    faults.into_iter().map(error).collect()
}

/// Positions to record.
#[derive(InputObject)]
pub struct RecordLocationsInput {
    /// In any order, at most 1000. A point that cannot be read, such as one with a malformed time, is refused
    /// by itself.
    points: Vec<Item<LocationPointInput>>,
}

/// What became of a point. New outcomes may be added.
#[derive(Enum, Copy, Clone, Debug, Eq, PartialEq)]
pub enum LocationOutcome {
    /// It is stored.
    Accepted,
    /// It was stored before, or stands further ahead in the same batch.
    Duplicate,
    /// It cannot be right, and is not stored.
    Rejected,
}

impl LocationOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "ACCEPTED",
            Self::Duplicate => "DUPLICATE",
            Self::Rejected => "REJECTED",
        }
    }
}

enum_leaf!(LocationOutcome, LocationOutcome);

/// `LocationResult`
#[derive(Clone)]
struct LocationResult {
    outcome: LocationOutcome,
    location: Option<LocationId>,
    errors: Arc<[UserError]>,
}

impl Entity for LocationResult {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<LocationResult>> = LazyLock::new(|| {
            Object::<LocationResult>::new("LocationResult", "What became of one point.")
                .of(Domain::Locations)
                .column("outcome", "Stored, there already, or refused.", |result| &result.outcome)
                .written(
                    "location",
                    "The position as it is stored. Null where the point was refused.",
                    |result| result.location,
                )
                .edge(
                    "userErrors",
                    "Why the point was refused.",
                    UserErrors::new(|result: &LocationResult| &result.errors),
                )
        });
        &OBJECT
    }
}

/// The answer of `recordLocations`.
#[derive(Clone)]
pub(crate) struct RecordLocationsPayload {
    results: Vec<LocationResult>,
}

impl RecordLocationsPayload {
    fn count(&self, outcome: LocationOutcome) -> i64 {
        self.results.iter().filter(|result| result.outcome == outcome).count() as i64
    }
}

/// It shows what was refused, too, which the input says.
impl Payload for RecordLocationsPayload {}

impl Entity for RecordLocationsPayload {
    fn object() -> &'static Object<Self> {
        static OBJECT: LazyLock<Object<RecordLocationsPayload>> = LazyLock::new(|| {
            Object::<RecordLocationsPayload>::new(
                "RecordLocationsPayload",
                "The answer of `recordLocations`.",
            )
            .of(Domain::Locations)
            .computed("acceptedCount", "How many points were stored.", |payload| {
                payload.count(LocationOutcome::Accepted)
            })
            .computed("duplicateCount", "How many were there already.", |payload| {
                payload.count(LocationOutcome::Duplicate)
            })
            .computed("rejectedCount", "How many were refused.", |payload| {
                payload.count(LocationOutcome::Rejected)
            })
            .edge(
                "results",
                "What became of each point, in the order in which they were sent.",
                Inline::new(|payload: &RecordLocationsPayload| &payload.results),
            )
        });
        &OBJECT
    }
}

/// Points in a batch at most.
const MAX_POINTS: usize = 1_000;

/// What became of the points without faults when the same request was sent before.
fn recorded_before(stored: &Stored, points: usize) -> Result<Vec<Recorded>, FieldError> {
    let recorded: Vec<(Uuid, bool)> =
        serde_json::from_value(stored.result.clone()).map_err(FieldError::internal_by)?;
    if recorded.len() != points {
        return Err(FieldError::internal_by("the points were judged otherwise when they were recorded"));
    }
    Ok(recorded.into_iter().map(|(id, is_new)| Recorded { id: LocationId(id), is_new }).collect())
}

/// `Mutation.recordLocations`
async fn record(
    Input(input): Input<RecordLocationsInput>,
    ctx: &Context,
) -> MutationResult<RecordLocationsPayload> {
    let recorder = RecordedBy { user: ctx.user()?, session: ctx.viewer().session_id() };
    if input.points.len() > MAX_POINTS {
        return Err(FieldError::bad_input(format!("`input.points` takes at most {MAX_POINTS} points")));
    }
    // The same request finds the same faults when it comes again.
    let now = ctx.claim().map_or_else(|| ctx.now(), Claim::began);
    let mut good = Vec::with_capacity(input.points.len());
    let mut results = Vec::with_capacity(input.points.len());
    for (index, point) in input.points.into_iter().enumerate() {
        let path = || ["input".into(), "points".into(), index.to_string().into()];
        let errors = match point {
            Item::Malformed(malformed) => vec![of_malformed(malformed, &path())],
            Item::Read(point) => {
                let point = NewPosition::from(point);
                let faults = point.faults(now);
                if faults.is_empty() {
                    good.push(point);
                    results.push(None);
                    continue;
                }
                errors_of(faults, &path())
            }
        };
        results.push(Some(LocationResult {
            outcome: LocationOutcome::Rejected,
            location: None,
            errors: errors.into(),
        }));
    }
    let recorded = match ctx.stored() {
        Some(stored) => recorded_before(stored, good.len())?,
        None => record::record(ctx.store(), recorder, &good)
            .await
            .map_err(|error| Database::field_error(&error, "location.record"))?,
    };
    let mut stored = recorded.into_iter().map(|recorded| {
        let outcome = if recorded.is_new { LocationOutcome::Accepted } else { LocationOutcome::Duplicate };
        LocationResult { outcome, location: Some(recorded.id), errors: Arc::default() }
    });
    let result =
        |rejected: Option<_>| rejected.or_else(|| stored.next()).expect("each good point has an outcome");
    Ok(RecordLocationsPayload { results: results.into_iter().map(result).collect() }.into())
}
