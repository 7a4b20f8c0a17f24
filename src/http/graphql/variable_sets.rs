//! Several sets of variables of one document, `"variables": [{…}, {…}]`: one execution with an answer for
//! each set, as in the batching proposal of GraphQL over HTTP (its appendix B). Here they are run within the
//! deadline of one request, measured and logged as one operation, and put into one JSON array. Not here:
//! telling them as they are ready, in lines, as events or on a WebSocket (`subscriptions`).

use std::time::Instant;

use axum::http::{HeaderMap, StatusCode};
use schema::{OperationKind, Progress, Reply, Taken, VariableSets};
use tracing::{Instrument as _, Span};

use super::{
    Answers, ArrayOfAnswers, Asked, GraphQLResponse, ONLY_QUERIES, RequestSummary, find_document,
    incoming::Requester,
    late, note_entities, note_found, operation_span,
    record::{self, SetsSummary},
    request,
};
use crate::{
    App,
    http::{params::GraphQLParams, request_id},
    rejection::Rejection,
};

/// Runs all sets; `tell` gets their answers in order, each as soon as it is written. Those that are not
/// written by the deadline are told that they were stopped, and that of a mutation that was under way,
/// whether something of it may be stored. Where nothing can run, the only answer is returned.
pub(in crate::http) async fn run(
    app: &App,
    headers: &HeaderMap,
    requester: &Requester,
    (span, mut params): (Span, GraphQLParams),
    mut tell: impl FnMut(Reply) + Send,
) -> Result<Option<Reply>, Rejection> {
    let started = Instant::now();
    let mut about = requester.about(app, &params);
    let sets = match std::mem::take(&mut params.variables) {
        VariableSets::One(set) => vec![set],
        VariableSets::Many(sets) => sets,
    };
    let (all, mut told) = (sets.len(), SetsSummary::default());
    // Sets that write run one after the other: what was committed since the last answer is of the next set.
    let (progress, mut commits_told) = (Progress::default(), 0);
    let running = async {
        let document = match find_document(app, headers, requester, &mut params).await {
            Ok(document) => document,
            Err(stop) => return stop.into_reply().map(Some),
        };
        let kind = note_found(app, &mut about, &document, params.operation_name.as_deref());
        if requester.is_safe && kind == Some(OperationKind::Mutation) {
            return Err(ONLY_QUERIES);
        }
        let request = schema::Request {
            taken: Taken::default(),
            progress: progress.clone(),
            found_from: Some(started),
            ..request(app, headers, requester, params)?
        };
        let viewer = requester.viewer.clone();
        let ran = app.graph.execute_sets(viewer, document, (request, sets), |reply| {
            told.add(&reply);
            commits_told = progress.commits.count();
            note_entities(&reply);
            tell(reply);
        });
        Ok(ran.await.err().map(|refused| *refused))
    };
    let ran = tokio::time::timeout(app.http.request_timeout, running.instrument(span.clone())).await;
    let outcome = ran.unwrap_or_else(|_| {
        let was_under_way = told.answered;
        told.is_late = true;
        for index in was_under_way..all {
            let may_be_stored = index == was_under_way && progress.commits.count() > commits_told;
            let stopped = late(may_be_stored, requester).into_reply(request_id(headers));
            let stopped = Reply { operation: about.kind, ..stopped }.of_set(index);
            told.add(&stopped);
            tell(stopped);
        }
        Ok(None)
    });
    let summary = match &outcome {
        Ok(Some(refused)) => RequestSummary::of_reply(refused),
        Ok(None) => RequestSummary::of_sets(&told).stopped(&progress),
        Err(rejection) => RequestSummary::of_rejection(rejection),
    };
    let status = outcome.as_ref().err().map_or(StatusCode::OK, |rejection| rejection.status);
    record::record(app, headers, (&span, started), status, &summary, &about);
    outcome
}

/// Runs all sets, and answers with an array in their order.
pub(super) async fn array(asked: Asked<'_>, params: GraphQLParams) -> Answers {
    let Asked { app, headers, requester, .. } = asked;
    let mut answers = ArrayOfAnswers { is_of_sets: true, ..ArrayOfAnswers::default() };
    let ran = run(app, headers, requester, (operation_span(headers), params), |reply| {
        let is_owed = reply.operation == Some(OperationKind::Mutation);
        answers.push(reply.body, reply.held, (is_owed, reply.cost));
    });
    match ran.await {
        Ok(None) => Answers::Many(answers.ended()),
        Ok(Some(refused)) => {
            let status = asked.status(&refused);
            Answers::One(Ok(GraphQLResponse::of(refused, status)))
        }
        Err(rejection) => Answers::One(Err(rejection)),
    }
}
