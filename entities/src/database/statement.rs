//! SeaORM's statements on our own connections. A domain builds them with its entity: `Entity::find` and its
//! like, an `ActiveModel`, or sea-query with the entity's `Column`s. SeaORM's `ConnectionTrait` is not implemented: its
//! errors say neither which statement failed nor whether the database was there, and every statement has a name. Not
//! here: the text of the batch reads (`sql`), connections (`pool`), what is read and written (the domains).

use sea_orm::{
    ActiveModelTrait, ColumnTrait, EntityTrait, QuerySelect as _, QueryTrait, Select, UpdateOne,
    ValidatedUpdateOne,
    sea_query::{Expr, ExprTrait as _, Value, extension::postgres::PgFunc},
    sqlx,
};

use crate::{
    database::{
        Database, WriteFault,
        sql::{Cell, Cells, Record, Sql},
        transaction::SqlTransaction,
    },
    error::Error,
};

/// A select of the columns that `R` has, in their order.
pub(super) fn select_of<R: Record>(select: Select<R::Entity>) -> impl QueryTrait {
    R::select_cols(select.select_only())
}

/// What can be run on the database and in a transaction of it alike.
macro_rules! run_on {
    ($($runner:ty),+) => {$(
        impl $runner {
            /// A statement of SeaORM's builders.
            pub(crate) fn build(&self, query: &impl QueryTrait) -> Sql {
                Sql::built(self.backend(), query.as_query())
            }

            /// Rows that a select finds; of each only what `R` has.
            pub(crate) async fn all<R: Record>(
                &self,
                name: &'static str,
                select: Select<R::Entity>,
            ) -> Result<Vec<R>, Error> {
                self.fetch(name, R::table(), self.build(&select_of::<R>(select)), R::read).await
            }

            /// The row that a select finds, if there is one; of it only what `R` has.
            pub(crate) async fn one<R: Record>(
                &self,
                name: &'static str,
                select: Select<R::Entity>,
            ) -> Result<Option<R>, Error> {
                Ok(self.all(name, select).await?.into_iter().next())
            }

            /// Runs a select about an entity, and reads each row with `read`.
            pub(crate) async fn rows<E: EntityTrait, T>(
                &self,
                name: &'static str,
                entity: E,
                query: &impl QueryTrait,
                read: impl Fn(&mut Cells<'_>) -> Result<T, sqlx::Error>,
            ) -> Result<Vec<T>, Error> {
                self.fetch(name, entity.table_name(), self.build(query), read).await
            }

            /// Runs a statement about an entity that answers one column.
            pub(crate) async fn column<E: EntityTrait, T: Cell>(
                &self,
                name: &'static str,
                entity: E,
                query: &impl QueryTrait,
            ) -> Result<Vec<T>, Error> {
                self.rows(name, entity, query, |cells| cells.next()).await
            }
        }
    )+};
}
run_on!(Database, SqlTransaction);

impl Database {
    /// Writes by one statement that is a transaction of its own. On SQLite it does not wait for its turn
    /// behind the writers of this process, only for the file. While the disk of PostgreSQL is full nothing is
    /// written unless there is room again.
    pub(crate) async fn write_alone<E: EntityTrait>(
        &self,
        name: &'static str,
        entity: E,
        query: &impl QueryTrait,
    ) -> Result<(), Error> {
        if self.opened.pool.is_some() {
            if self.write_fault() == Some(WriteFault::Full) {
                self.expect_room().await?;
            }
            let transaction = SqlTransaction::begin(self).await?;
            transaction.write(name, entity, query).await?;
            return transaction.commit().await;
        }
        let written = self.rows(name, entity, query, |_| Ok(())).await.map(drop);
        match &written {
            Ok(()) => self.opened.writes.stored(),
            Err(error) => self.opened.writes.failed(error),
        }
        written
    }
}

impl Database {
    /// Whether PostgreSQL has room for about a megabyte: a row that is changed in its place, as a sign of
    /// life is, finds room where nothing else does. Nothing of it stays.
    ///
    /// # Errors
    /// The database's, where it has no room. Another failure (an account without the right to make temporary
    /// tables) says nothing about it.
    async fn expect_room(&self) -> Result<(), Error> {
        const FILL: &str = "CREATE TEMPORARY TABLE room ON COMMIT DROP AS \
                            SELECT repeat('x', 1000) AS filler FROM generate_series(1, 1000)";
        let filled = async {
            let transaction = SqlTransaction::begin(self).await?;
            let mut sql = transaction.sql();
            sql.push(FILL);
            transaction.execute("database.room", "room", sql).await
        };
        match filled.await {
            Err(error) if WriteFault::of(&error) == Some(WriteFault::Full) => Err(error),
            _ => Ok(()),
        }
    }
}

impl SqlTransaction {
    /// Inserts a row of the values that are set. Answers how many rows that makes.
    pub(crate) async fn insert<A: ActiveModelTrait>(&self, name: &'static str, row: A) -> Result<u64, Error> {
        self.write(name, A::Entity::default(), &A::Entity::insert(row)).await
    }

    /// Changes what is set in the row of this primary key. Answers how many rows there are.
    pub(crate) async fn update<A: ActiveModelTrait>(&self, name: &'static str, row: A) -> Result<u64, Error> {
        let update: UpdateOne<A> = A::Entity::update(row);
        let update: ValidatedUpdateOne<A> =
            update.validate().map_err(|source| Error::Statement { statement: name, source })?;
        self.write(name, A::Entity::default(), &update).await
    }

    /// Runs a statement that changes rows of an entity's table; says how many.
    pub(crate) async fn write<E: EntityTrait>(
        &self,
        name: &'static str,
        entity: E,
        query: &impl QueryTrait,
    ) -> Result<u64, Error> {
        self.execute(name, entity.table_name(), self.build(query)).await
    }

    /// Is the column any of these? One array on PostgreSQL, so one prepared statement for every number of values.
    pub(crate) fn is_any<V: Into<Value> + Copy>(&self, column: impl ColumnTrait, values: &[V]) -> Expr {
        let values = values.iter().map(|value| (*value).into());
        if !self.sql().is_postgres() {
            return column.is_in(values);
        }
        let values: Vec<Value> = values.collect();
        let Some(first) = values.first() else { return Expr::val(false) };
        let array = Value::Array(first.array_type(), Some(Box::new(values)));
        Expr::col(column.as_column_ref()).eq(PgFunc::any(array))
    }
}
