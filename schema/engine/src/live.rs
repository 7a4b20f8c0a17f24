//! The directive `@live`, as the schema has it. Not here: what a live query does.

use async_graphql::{
    indexmap::IndexMap,
    registry::{__DirectiveLocation as DirectiveLocation, Deprecation, MetaDirective, MetaInputValue},
};

/// The directive's name.
pub const NAME: &str = "live";
/// The name of the argument of `@live`.
pub const THROTTLE: &str = "throttle";
/// In so many milliseconds there is one answer at most: where nothing else is said, and the least and the
/// most that may be said.
pub const PAUSE: (u64, u64, u64) = (200, 50, 60_000);

const ABOUT: &str = "Over WebSocket, server-sent events or multipart: the answer, and again whenever \
                     something that it was made of is written and changes it. Over plain HTTP: the \
                     answer, once.";
const ABOUT_THROTTLE: &str = "At most one answer in so many milliseconds, 50 to 60000.";

/// The definition of `@live` in SDL, for client tools.
pub fn sdl() -> String {
    let default = PAUSE.0;
    format!(
        "\"\"\"\n{ABOUT}\n\"\"\"\ndirective @{NAME}(\n  \"\"\"\n  {ABOUT_THROTTLE}\n  \"\"\"\n  \
         {THROTTLE}: Int = {default}\n) on QUERY\n\n"
    )
}

/// The definition of `@live` for the registry of async-graphql, by which documents are validated.
pub fn directive() -> MetaDirective {
    let throttle = MetaInputValue {
        name: THROTTLE.to_owned(),
        description: Some(ABOUT_THROTTLE.to_owned()),
        ty: "Int".to_owned(),
        deprecation: Deprecation::NoDeprecated,
        default_value: Some(PAUSE.0.to_string()),
        visible: None,
        inaccessible: false,
        tags: Vec::new(),
        is_secret: false,
        directive_invocations: Vec::new(),
    };
    MetaDirective {
        name: NAME.to_owned(),
        description: Some(ABOUT.to_owned()),
        locations: vec![DirectiveLocation::QUERY],
        args: IndexMap::from([(THROTTLE.to_owned(), throttle)]),
        is_repeatable: false,
        visible: None,
        composable: None,
    }
}
