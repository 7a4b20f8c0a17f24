//! Values that are one of a few names. Not here: all others.

use serde_json::json;

use super::Setting;

macro_rules! choices {
    ($(
        $(#[$doc:meta])*
        $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal ),+ }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $( $(#[$variant_doc])* $variant ),+ }

        impl Setting for $name {
            const EXPECTS: &'static str = concat!($($text, " ",)+);
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $( $text => Ok(Self::$variant), )+
                    _ => Err(format!("it must be one of: {}", [$($text),+].join(", "))),
                }
            }
            fn schema() -> serde_json::Value {
                json!({ "enum": [$($text),+] })
            }
        }
    )+};
}

choices! {
    /// On, off, or as the mode has it.
    Switch {
        /// As the mode has it.
        Auto = "auto",
        /// On.
        On = "on",
        /// Off.
        Off = "off"
    }
    /// Whether the playground is there, and what it may be told.
    Playground {
        /// In development only.
        Auto = "auto",
        /// The page.
        On = "on",
        /// Nothing.
        Off = "off",
        /// The page; signed-in administrators get the schema's introspection, in production too.
        Admins = "admins"
    }
    /// Which documents a client may send.
    DocumentMode {
        /// Texts only.
        Off = "off",
        /// Texts, trusted documents, and documents that clients register by themselves.
        Apq = "apq",
        /// All that `apq` takes; texts that are not published are logged.
        Audit = "audit",
        /// Trusted documents, by id or by text.
        Safelist = "safelist",
        /// Trusted documents, by id.
        RequireId = "require_id"
    }
    /// By which text of GraphQL over HTTP answers get their status.
    Statuses {
        /// The draft of 2025: 200 for what ran, 400 for what did not.
        Draft = "draft",
        /// The release of September 2026: 294 for partial data, 422 for documents and variables that are wrong.
        Of2026 = "2026"
    }
    /// What is between this server and PostgreSQL.
    PoolerMode {
        /// A pooler of transactions where `database.direct_url` is set, else nothing.
        Auto = "auto",
        /// Nothing.
        None = "none",
        /// A pooler that lends a connection for as long as its client has one.
        Session = "session",
        /// A pooler that lends a connection for one transaction.
        Transaction = "transaction"
    }
    /// In which of the codings that it takes a gateway is answered.
    GatewayCompression {
        /// In that which costs this server the least: a gateway is near.
        Cheapest = "cheapest",
        /// In that which takes the fewest bytes, as others are.
        Smallest = "smallest",
        /// As it is, unless it takes nothing but a coding.
        Off = "off"
    }
    /// Which traces are kept, by OpenTelemetry's names.
    Sampler {
        /// All.
        AlwaysOn = "always_on",
        /// None.
        AlwaysOff = "always_off",
        /// A part of them.
        Ratio = "traceidratio",
        /// As the caller has decided; else all.
        ParentOrOn = "parentbased_always_on",
        /// As the caller has decided; else none.
        ParentOrOff = "parentbased_always_off",
        /// As the caller has decided; else a part of them.
        ParentOrRatio = "parentbased_traceidratio"
    }
    /// How a collector is spoken to (OTLP); named as in OpenTelemetry's specification.
    OtlpProtocol {
        /// Protobuf over HTTP.
        HttpProtobuf = "http/protobuf",
        /// Calls of gRPC.
        Grpc = "grpc"
    }
    /// How log lines are written.
    LogFormat {
        /// Pretty on a terminal, JSON elsewhere.
        Auto = "auto",
        /// For people.
        Pretty = "pretty",
        /// For machines.
        Json = "json",
        /// For machines, with the names of the Elastic Common Schema.
        Ecs = "ecs"
    }
}

/// A mode for each of some clients, as in `legacy=apq, web=require_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientModes(Vec<(String, DocumentMode)>);

impl ClientModes {
    /// The mode of the client of this name, if it has one of its own.
    pub fn of(&self, client: &str) -> Option<DocumentMode> {
        self.0.iter().find(|(name, _)| name == client).map(|(_, mode)| *mode)
    }
}

impl Setting for ClientModes {
    const EXPECTS: &'static str = "client=mode, …";
    fn parse(text: &str) -> Result<Self, String> {
        let modes = text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(|part| {
            let (client, mode) = part.split_once('=').ok_or("write it as in legacy=apq, web=require_id")?;
            Ok((client.trim().to_owned(), DocumentMode::parse(mode.trim())?))
        });
        modes.collect::<Result<_, String>>().map(Self)
    }
}

impl Switch {
    /// Whether it is on, given what `auto` means here.
    pub fn is_on(self, auto: bool) -> bool {
        match self {
            Self::Auto => auto,
            Self::On => true,
            Self::Off => false,
        }
    }
}

impl Playground {
    /// Whether the page is there.
    pub fn is_on(self, is_development: bool) -> bool {
        match self {
            Self::Auto => is_development,
            Self::On | Self::Admins => true,
            Self::Off => false,
        }
    }
}
