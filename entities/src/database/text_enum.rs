//! Enums that are stored, sent and cached as texts.

/// An enum stored as its upper-case GraphQL name.
macro_rules! text_enum {
    (
        $(#[$doc:meta])*
        $name:ident { $( $(#[$variant_doc:meta])* $variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sea_orm::EnumIter,
            sea_orm::DeriveActiveEnum,
        )]
        #[sea_orm(rs_type = "String", db_type = "Text")]
        pub enum $name {
            $( $(#[$variant_doc])* #[sea_orm(string_value = $text)] $variant ),+
        }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is stored and sent.
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text ),+ }
            }

            /// Reads the stored name.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $( $text => Some(Self::$variant), )+ _ => None }
            }
        }

        /// As bytes it is the stored name and not its place in this list: a cache that two versions of the program
        /// share must not take one value for another, least of all one role.
        const _: () = {
            use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

            #[derive(Serialize, Deserialize)]
            enum Readable { $( $variant ),+ }

            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    if serializer.is_human_readable() {
                        match self { $( Self::$variant => Readable::$variant ),+ }.serialize(serializer)
                    } else {
                        serializer.serialize_str(self.as_str())
                    }
                }
            }

            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    if deserializer.is_human_readable() {
                        let readable = Readable::deserialize(deserializer)?;
                        Ok(match readable { $( Readable::$variant => Self::$variant ),+ })
                    } else {
                        let text = <&str>::deserialize(deserializer)?;
                        Self::parse(text).ok_or_else(|| D::Error::custom(stringify!($name)))
                    }
                }
            }
        };

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl $crate::database::sql::Cell for Option<$name> {
            fn read(
                row: $crate::database::sql::RowSource<'_>,
                at: usize,
            ) -> Result<Self, sea_orm::sqlx::Error> {
                let Some(text) = $crate::database::sql::text_at(row, at)? else { return Ok(None) };
                let what = || format!("unknown {} `{text}`", stringify!($name));
                $name::parse(text).map(Some).ok_or_else(|| $crate::database::sql::misread(at, what()))
            }
        }

        impl $crate::database::sql::Cell for $name {
            fn read(
                row: $crate::database::sql::RowSource<'_>,
                at: usize,
            ) -> Result<Self, sea_orm::sqlx::Error> {
                let value = <Option<Self> as $crate::database::sql::Cell>::read(row, at)?;
                value.ok_or_else(|| $crate::database::sql::misread(at, "unexpected NULL"))
            }
        }
    };
}

pub(crate) use text_enum;

#[cfg(test)]
mod tests {
    use crate::{database::role::Role, session::EndReason};

    #[test]
    fn enums_keep_their_stored_and_json_names() {
        for role in Role::ALL {
            let bytes = postcard::to_allocvec(role).expect("it is a text");
            assert_eq!(bytes[1..], *role.as_str().as_bytes());
            assert_eq!(postcard::from_bytes::<Role>(&bytes).as_ref(), Ok(role));
        }
        let bytes = postcard::to_allocvec("OWNER").expect("it is a text");
        assert!(postcard::from_bytes::<Role>(&bytes).is_err(), "of another version: a miss");
        let json = serde_json::to_string(&EndReason::SignedOut).expect("it is a text");
        assert_eq!(json, "\"SignedOut\"");
        assert_eq!(
            serde_json::from_str::<EndReason>(&json).expect("it was written here"),
            EndReason::SignedOut
        );
    }
}
