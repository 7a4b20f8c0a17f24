//! `_entities` of the suite's types: by each of their keys, nested and composite ones too. Each representation is
//! answered by itself.

use std::sync::Arc;

use async_graphql::{
    Value,
    indexmap::IndexMap,
    parser::types::Field,
    registry::{MetaInputValue, Registry},
};
use futures_util::{FutureExt as _, future::BoxFuture};

use engine::{
    context::Context,
    edge::{Arguments, Broken, FieldArgs},
    error::{FieldError, RequestError, SourceLocation},
    object::{Edge, Entity as _, FieldRequest, Filled, Rows, Run, Selection},
    output::{Unwritten, Writer},
    plan::Planner,
};

use super::{
    Deprecated, EMAIL, Id, Inventory, Product, Query, Research, User, UserRow, WORLD, creator, deprecated,
    product,
};

/// The edge.
pub(super) fn edge() -> impl Edge<Query> {
    Entities
}

struct Entities;

/// An object that a representation names.
#[derive(Clone)]
enum Named {
    Product(Product),
    Deprecated(Deprecated),
    Research(Research),
    User(User),
    Inventory(Inventory),
}

type ReferenceResult = Result<Option<Named>, FieldError>;

struct Representations(Vec<ReferenceResult>);

impl Arguments for Representations {
    fn describe(_: &mut Registry) -> IndexMap<String, MetaInputValue> {
        IndexMap::new()
    }

    fn of(planner: &Planner<'_>, field: &Field) -> Result<Self, String> {
        match planner.argument(field, "representations").as_deref() {
            Some(Value::List(representations)) => Ok(Self(representations.iter().map(find).collect())),
            _ => Err("`representations` must be a list".to_owned()),
        }
    }
}

/// What a representation names, by whichever key it has.
fn find(representation: &Value) -> ReferenceResult {
    let text = |path: &[&str]| text_at(representation, path);
    let type_name = text(&["__typename"]);
    Ok(match type_name.as_deref() {
        Some("Product") => {
            let (id, sku) = (text(&["id"]), text(&["sku"]));
            let (package, variation) = (text(&["package"]), text(&["variation", "id"]));
            let found = product(|row| match (&id, &package, &variation) {
                (Some(id), ..) => row.id.0 == *id,
                (_, Some(_), _) => row.sku == sku && row.package == package,
                (_, _, Some(variation)) => row.sku == sku && row.variation.id.0 == *variation,
                _ => false,
            });
            found.map(|row| Named::Product(Product { row }))
        }
        Some("DeprecatedProduct") => {
            let found = text(&["sku"]).zip(text(&["package"]));
            let found = found.and_then(|(sku, package)| deprecated(&sku, &package));
            found.map(|row| Named::Deprecated(Deprecated { row }))
        }
        Some("ProductResearch") => {
            let case = text(&["study", "caseNumber"]).map(Id);
            let found = product(|row| case.as_ref() == Some(&row.research.study.case_number));
            found.map(|row| Named::Research(Research { row: Arc::clone(&row.research) }))
        }
        Some("User") => {
            let number = |name: &str| number_at(representation, name);
            let is_known = text(&["email"]).is_some_and(|email| email == EMAIL);
            is_known.then(|| {
                let UserRow { email, name, total, years } = creator();
                // What a field requires comes along.
                let total = number("totalProductsCreated").or(total);
                let row = UserRow { email, name, total, years: number("yearsOfEmployment").unwrap_or(years) };
                Named::User(User { row: Arc::new(row) })
            })
        }
        Some("Inventory") => {
            let is_known = text(&["id"]).is_some_and(|id| id == WORLD.inventory.id.0);
            is_known.then(|| Named::Inventory(Inventory { row: Arc::clone(&WORLD.inventory) }))
        }
        _ => {
            return Err(FieldError::bad_input(
                "Unknown `__typename`: this subgraph does not resolve this type.",
            ));
        }
    })
}

fn value_at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    path.iter().try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(*name),
        _ => None,
    })
}

fn text_at(value: &Value, path: &[&str]) -> Option<String> {
    match value_at(value, path) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    }
}

fn number_at(value: &Value, name: &str) -> Option<i32> {
    match value_at(value, &[name]) {
        Some(Value::Number(number)) => i32::try_from(number.as_i64()?).ok(),
        _ => None,
    }
}

impl Edge<Query> for Entities {
    fn type_ref(&self, _: &mut Registry) -> String {
        "[_Entity]!".to_owned()
    }

    fn arguments(&self, registry: &mut Registry) -> IndexMap<String, MetaInputValue> {
        Representations::describe(registry)
    }

    fn is_nullable(&self) -> bool {
        false
    }

    fn plan<'q>(&'static self, request: FieldRequest<'q>) -> Result<Box<dyn Run<Query> + 'q>, RequestError> {
        let location = request.selected.location;
        let (planner, sets, ctx) = (request.planner, &request.selected.sets, request.ctx);
        let types = Types {
            products: Product::object().plan(planner, sets, ctx)?,
            deprecated: Deprecated::object().plan(planner, sets, ctx)?,
            research: Research::object().plan(planner, sets, ctx)?,
            users: User::object().plan(planner, sets, ctx)?,
            inventories: Inventory::object().plan(planner, sets, ctx)?,
        };
        Ok(match FieldArgs::<Representations>::of(&request) {
            Ok(FieldArgs { args: Representations(slots), .. }) => {
                Box::new(EntitiesRun { slots, types, location })
            }
            Err(error) => Box::new(Broken { error, location }),
        })
    }
}

/// The selection on each type.
struct Types<'q> {
    products: Selection<'q, Product>,
    deprecated: Selection<'q, Deprecated>,
    research: Selection<'q, Research>,
    users: Selection<'q, User>,
    inventories: Selection<'q, Inventory>,
}

struct EntitiesRun<'q> {
    slots: Vec<ReferenceResult>,
    types: Types<'q>,
    location: SourceLocation,
}

impl Run<Query> for EntitiesRun<'_> {
    fn start<'a>(&'a self, _: &[Query], ctx: &'a Context) -> BoxFuture<'a, Box<dyn Filled + 'a>> {
        let (mut products, mut deprecated, mut research) = (Vec::new(), Vec::new(), Vec::new());
        let (mut users, mut inventories) = (Vec::new(), Vec::new());
        for slot in self.slots.iter().flatten().flatten().cloned() {
            match slot {
                Named::Product(product) => products.push(product),
                Named::Deprecated(one) => deprecated.push(one),
                Named::Research(one) => research.push(one),
                Named::User(user) => users.push(user),
                Named::Inventory(inventory) => inventories.push(inventory),
            }
        }
        async move {
            let types = &self.types;
            let rows = TypeRows {
                products: types.products.run(products, ctx).await,
                deprecated: types.deprecated.run(deprecated, ctx).await,
                research: types.research.run(research, ctx).await,
                users: types.users.run(users, ctx).await,
                inventories: types.inventories.run(inventories, ctx).await,
            };
            Box::new(EntitiesFilled { slots: &self.slots, rows, location: self.location }) as Box<dyn Filled>
        }
        .boxed()
    }
}

/// The objects of each type, in the order of the slots that name them.
struct TypeRows<'a, 'q> {
    products: Rows<'a, 'q, Product>,
    deprecated: Rows<'a, 'q, Deprecated>,
    research: Rows<'a, 'q, Research>,
    users: Rows<'a, 'q, User>,
    inventories: Rows<'a, 'q, Inventory>,
}

struct EntitiesFilled<'a, 'q> {
    slots: &'a [ReferenceResult],
    rows: TypeRows<'a, 'q>,
    location: SourceLocation,
}

impl Filled for EntitiesFilled<'_, '_> {
    fn write<'w>(&'w self, _: usize, writer: &mut Writer<'w>) -> Result<(), Unwritten> {
        writer.list(self.slots.len(), true, |index, writer| match &self.slots[index] {
            Err(error) => Err(writer.fail(error, self.location)),
            Ok(None) => {
                writer.out.extend(b"null");
                Ok(())
            }
            Ok(Some(named)) => {
                let is_same = |slot: &&ReferenceResult| {
                    let other = slot.as_ref().ok().and_then(Option::as_ref);
                    other.is_some_and(|other| std::mem::discriminant(other) == std::mem::discriminant(named))
                };
                let row = self.slots[..index].iter().filter(is_same).count();
                match named {
                    Named::Product(_) => self.rows.products.write(row, writer),
                    Named::Deprecated(_) => self.rows.deprecated.write(row, writer),
                    Named::Research(_) => self.rows.research.write(row, writer),
                    Named::User(_) => self.rows.users.write(row, writer),
                    Named::Inventory(_) => self.rows.inventories.write(row, writer),
                }
            }
        })
    }
}
