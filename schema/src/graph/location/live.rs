//! Positions as they come in: `Subscription.locationUpdated`.

use async_graphql::{ID, InputObject};
use entities::{
    database::scope::Scope,
    events::ChangeEvent,
    id::UserId,
    location::{Area, LAST_OF_USERS, Model},
};

use super::{AreaInput, Location};
use crate::{
    context::ContextExt as _,
    graph::{edges::FindLoader, subscription::Listen, user::user_ids},
};

/// The arguments of `Subscription.locationUpdated`.
#[derive(InputObject)]
pub struct UpdatedArgs {
    /// Only of these accounts.
    user_ids: Option<Vec<ID>>,
    /// Only positions inside this area.
    area: Option<AreaInput>,
}

/// Which positions a subscriber waits for.
pub(crate) struct Wanted {
    scope: Scope,
    users: Option<Vec<UserId>>,
    area: Option<Area>,
}

impl Wanted {
    /// Whether the viewer may see it is decided on the row; but most could not, and need not be read.
    fn has(&self, user: UserId) -> bool {
        let may_see = self.scope.manages() || self.scope.user() == Some(user);
        may_see && self.users.as_ref().is_none_or(|users| users.contains(&user))
    }

    fn holds(&self, row: &Model) -> bool {
        self.area.as_ref().is_none_or(|area| area.contains(row.latitude, row.longitude))
    }
}

/// `Subscription.locationUpdated`
pub(crate) fn updated() -> Listen<UpdatedArgs, Wanted, FindLoader<UserId, Model>, Location> {
    Listen {
        bind: |args, ctx| {
            let area = args.area.as_ref().map(AreaInput::read).transpose()?;
            Ok(Wanted { scope: ctx.scope(), users: user_ids("userIds", args.user_ids.as_deref())?, area })
        },
        key: |wanted, change| match *change {
            ChangeEvent::LastLocation { user, .. } if wanted.has(user) => Some(user),
            _ => None,
        },
        load: |ctx| FindLoader::of(&LAST_OF_USERS, ctx),
        // A position that was overtaken meanwhile is left out: the newer one has its own event.
        wants: |wanted, change, row| {
            matches!(change, ChangeEvent::LastLocation { id, .. } if *id == row.id) && wanted.holds(row)
        },
    }
}
