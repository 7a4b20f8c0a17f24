//! The parts of the graph that can be served apart from each other. Each type and field belongs to one domain, which it
//! carries as its `@tag`; what has none (`PageInfo`, `Node`, scalars) is everybody's. A process that serves some of the
//! domains keeps of the library's registry what belongs to these, and of foreign entities the key, so that validation,
//! introspection, costs and SDL all follow. Not here: the SDL's text (`sdl`), what a field does.

use std::{borrow::Cow, collections::BTreeSet, fmt, str::FromStr};

use async_graphql::{
    ContextDirective, CustomDirective, CustomDirectiveFactory, ServerResult,
    indexmap::IndexMap,
    parser::types::Directive,
    registry::{MetaField, MetaInputValue, MetaType, MetaTypeName, Registry},
};
use engine::{
    cost::{self, Weights},
    live,
    object::{Entity, Object},
};

/// What costs more or less than its kind. The points of a track are read to be thinned: it costs like so many
/// objects before it is known how many points it has; what all tracks of a request read has a bound of its
/// own (`entities::location::track::MAX_POINTS`).
const WEIGHTS: Weights =
    Weights { fields: &[("User", "track", 0)], arguments: &[("User", "track", "range", 50)] };

/// A part of the graph that can be served by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Accounts.
    Users,
    /// Their sessions, and signing in.
    Sessions,
    /// Forms, their versions, and what was filled in.
    Forms,
    /// Recorded positions.
    Locations,
    /// The activity log, whose entries lead to everything; so any object by its id is asked for here.
    Activity,
}

impl Domain {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Users, Self::Sessions, Self::Forms, Self::Locations, Self::Activity];

    /// Its name in commands and tags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Sessions => "sessions",
            Self::Forms => "forms",
            Self::Locations => "locations",
            Self::Activity => "activity",
        }
    }
}

/// The tag of what belongs to it.
impl From<Domain> for &'static str {
    fn from(domain: Domain) -> Self {
        domain.as_str()
    }
}

/// Which domains a process serves, and so which subgraph it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subgraph(u8);

impl Subgraph {
    /// All domains.
    pub const WHOLE: Self = Self((1 << Domain::ALL.len()) - 1);

    /// Does it serve this domain?
    pub const fn serves(self, domain: Domain) -> bool {
        self.0 & (1 << domain as u8) != 0
    }

    /// Does it answer for objects of this type: because the type is its own, or because it adds fields to it?
    pub(crate) fn resolves<T: Entity>(self, object: &Object<T>) -> bool {
        let mut domains = Domain::ALL.into_iter().filter(|domain| self.serves(*domain));
        domains.any(|domain| object.tags().any(|tag| tag == domain.as_str()))
    }

    /// Does it serve what has these tags? What has none is everybody's.
    fn serves_tagged(self, tags: &[String]) -> bool {
        let mut domains = Domain::ALL.iter().filter(|domain| tags.iter().any(|tag| tag == domain.as_str()));
        tags.is_empty() || domains.any(|domain| self.serves(*domain))
    }

    /// Takes away what it does not serve.
    fn carve(self, registry: &mut Registry) {
        registry.types.retain(|_, ty| match ty {
            MetaType::Object { tags, keys: None, .. } => self.serves_tagged(tags),
            _ => true,
        });
        for ty in registry.types.values_mut() {
            if let MetaType::Object { tags, fields, keys, resolvable, .. } = ty {
                let is_own = self.serves_tagged(tags);
                fields.retain(|name, field| {
                    let is_key = keys.is_some() && name == "id";
                    is_key || if field.tags.is_empty() { is_own } else { self.serves_tagged(&field.tags) }
                });
                if let (Some(keys), false) = (keys, is_own) {
                    keys.retain(|key| fields.contains_key(key));
                    *resolvable = fields.len() > keys.len();
                    tags.clear();
                }
            }
        }
        let is_empty = |root: &mut String| {
            registry.types.get(root).and_then(MetaType::fields).is_none_or(IndexMap::is_empty)
        };
        registry.mutation_type.take_if(is_empty);
        registry.subscription_type.take_if(is_empty);
        let reached = reached(registry);
        registry.types.retain(|name, _| reached.contains(name));
        for ty in registry.types.values_mut() {
            if let MetaType::Interface { possible_types, .. } = ty {
                possible_types.retain(|name| reached.contains(name));
            }
        }
    }
}

/// As in `users,sessions`.
impl FromStr for Subgraph {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        let served = names.map(|name| {
            let known = Domain::ALL.into_iter().find(|domain| domain.as_str() == name);
            known.ok_or_else(|| {
                let all = Domain::ALL.map(Domain::as_str).join(", ");
                format!("unknown domain `{name}`; known: {all}")
            })
        });
        let served = served.collect::<Result<Vec<_>, _>>()?;
        if served.is_empty() {
            return Err("name at least one, as in users,sessions".to_owned());
        }
        Ok(Self(served.into_iter().fold(0, |all, domain| all | (1 << domain as u8))))
    }
}

impl fmt::Display for Subgraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = Domain::ALL.into_iter().filter(|domain| self.serves(*domain));
        f.write_str(&served.map(Domain::as_str).collect::<Vec<_>>().join(","))
    }
}

/// The library's only door to a registry that is filled and not yet in use is meant for directives. No document can use
/// this one: validation does not know it.
impl CustomDirectiveFactory for Subgraph {
    fn name(&self) -> Cow<'static, str> {
        "subgraph".into()
    }

    fn register(&self, registry: &mut Registry) {
        if *self != Self::WHOLE {
            self.carve(registry);
        }
        cost::declare(registry, &WEIGHTS);
        registry.add_directive(live::directive());
    }

    fn create(&self, _: &ContextDirective<'_>, _: &Directive) -> ServerResult<Box<dyn CustomDirective>> {
        unreachable!("a valid document does not have this directive")
    }
}

/// The types that a client or a gateway can come by: from the roots, and from entities that are answered for here.
fn reached(registry: &Registry) -> BTreeSet<String> {
    let entities = registry.types.values().filter_map(|ty| match ty {
        MetaType::Object { name, keys: Some(_), resolvable: true, .. } => Some(name),
        _ => None,
    });
    let roots =
        [Some(&registry.query_type), registry.mutation_type.as_ref(), registry.subscription_type.as_ref()];
    let mut walk = Reachability { registry, seen: BUILT_IN.into(), open: BTreeSet::new() };
    for name in roots.into_iter().flatten().chain(entities) {
        walk.reach(name);
    }
    walk.seen.into_iter().map(ToOwned::to_owned).collect()
}

/// Scalars that are there in any case.
const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

struct Reachability<'r> {
    registry: &'r Registry,
    seen: BTreeSet<&'r str>,
    /// Interfaces that a field has: whatever implements one of these can come.
    open: BTreeSet<&'r str>,
}

impl<'r> Reachability<'r> {
    /// A type that something has.
    fn reach(&mut self, name: &'r str) {
        let Some(ty) = self.registry.types.get(name) else { return };
        let is_new = self.seen.insert(name);
        match ty {
            MetaType::Object { fields, .. } if is_new => {
                self.reach_fields(fields.values());
                for interface in self.registry.implements.get(name).into_iter().flatten() {
                    // Only named: what else implements it does not come by this.
                    if let Some(MetaType::Interface { fields, .. }) = self.registry.types.get(interface)
                        && self.seen.insert(interface)
                    {
                        self.reach_fields(fields.values());
                    }
                }
            }
            MetaType::Interface { fields, possible_types, .. } if self.open.insert(name) => {
                self.reach_fields(fields.values());
                possible_types.iter().for_each(|name| self.reach(name));
            }
            MetaType::InputObject { input_fields, .. } if is_new => {
                self.reach_inputs(input_fields.values());
            }
            _ => {}
        }
    }

    fn reach_fields(&mut self, fields: impl Iterator<Item = &'r MetaField>) {
        for field in fields {
            self.reach(MetaTypeName::concrete_typename(&field.ty));
            self.reach_inputs(field.args.values());
        }
    }

    fn reach_inputs(&mut self, inputs: impl Iterator<Item = &'r MetaInputValue>) {
        inputs.for_each(|input| self.reach(MetaTypeName::concrete_typename(&input.ty)));
    }
}
