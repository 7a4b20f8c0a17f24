//! The catalogue of error codes, as docs/errors.md prints it: the graph's own
//! (`schema::engine::error::Code`), those that only HTTP and persisted documents have, and the status that
//! each comes with. Not here: the errors themselves.

use std::fmt::Write as _;

use schema::engine::error::Code;

/// A code that a request can be refused with before the graph is asked, its status, and when a client gets it.
const BEFORE_THE_GRAPH: &[(&str, &str, &str)] = &[
    (
        "PERSISTED_QUERY_NOT_FOUND",
        "200",
        "Nobody has registered a document with this hash: send the text with it.",
    ),
    ("PERSISTED_QUERY_NOT_SUPPORTED", "200", "Persisted documents are off on this server."),
    ("PERSISTED_QUERY_HASH_MISMATCH", "400", "The text does not have this hash."),
    ("PERSISTED_QUERY_NOT_IN_LIST", "404", "No document with this id is published."),
    ("PERSISTED_QUERY_ID_REQUIRED", "400", "This server runs documents by their id only."),
    (
        "CANNOT_SEND_PQ_ID_AND_BODY",
        "400",
        "Id and text were sent together, and this server runs published documents only.",
    ),
    ("QUERY_NOT_IN_SAFELIST", "403", "The text is not one of the published documents."),
    (
        "CSRF_PREVENTION",
        "400",
        "A GET that any web page could have sent ([From a web page](clients.md#from-a-web-page)).",
    ),
    (
        "SUBSCRIPTION_INTERRUPTED",
        "200, on a stream",
        "The server stops, another database took over, or a backup was restored: read anew, and \
         subscribe again.",
    ),
];

/// The status of a code of the graph. HTTP has some of these codes, too.
const fn status(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "401; 200 from the graph",
        Code::Forbidden => "200, 403",
        Code::BadUserInput => "200, 400, 404, 405, 406, 415, 426",
        Code::BadCursor | Code::ResumeExpired => "200",
        Code::ParseFailed
        | Code::ValidationFailed
        | Code::OperationResolutionFailure
        | Code::IntrospectionDisabled
        | Code::DepthLimit
        | Code::CostLimit => "200 or 400",
        Code::PayloadTooLarge => "413; 200 or 400 from the graph",
        Code::RateLimited => "429; 200 from the graph",
        Code::Overloaded | Code::Unavailable => "503; 200 from the graph",
        Code::Conflict => "409",
        Code::IdempotencyMismatch => "422",
        Code::Timeout => "408, 504; 200 from the graph",
        Code::OutcomeUnknown => "504; 200 from the graph",
        Code::InternalServerError => "500; 200 from the graph",
    }
}

/// What `docs/errors.md` opens with.
const INTRODUCTION: &str = "\
# Error codes

<!-- Generated from the code; a test compares. Refresh it: UPDATE_GOLDEN=1 cargo test --test it docs -->

Each error has a code in `extensions.code` and the id of its request in `extensions.requestId`, which is \
also in the header
`X-Request-Id`. The message is for the developer of the client and may change; decide by the code. Internal \
failures are
masked: their cause is in the server's log, once for each request, under that id.

An error of the graph comes with status 200. Where nothing was executed and the caller accepts
`application/graphql-response+json`, its status is 400. With `http.statuses = \"2026\"` it is 422 instead, \
but for what cannot be
read, and an answer with data and errors has 294. Codes of persisted documents are explained under
[Persisted documents](clients.md#persisted-documents).

Errors that say whether to try again have `extensions.retryable`. Where it is `true`, nothing was changed,
or the same again gives the result that it would have given: send it again, after the seconds in the header
`Retry-After` where there is one. Where it is `false`, find out first what has become of it, or what else is
wrong. What a mutation has stored and could not read back is null in its payload, with an error that has its
id in `extensions.stored`.

What cannot be done with the input of a mutation, or may not be done to one object, is not an error of the \
request: it is
told in the payload's `userErrors` ([Mutations](clients.md#mutations)).

| code | status | when |
|---|---|---|
";

/// The page `docs/errors.md`: all codes, the graph's first.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    let of_graph = Code::ALL.iter().map(|code| (code.as_str(), status(*code), code.when().trim()));
    for (code, status, when) in of_graph.chain(BEFORE_THE_GRAPH.iter().copied()) {
        let _ = writeln!(page, "| `{code}` | {status} | {when} |");
    }
    page
}
