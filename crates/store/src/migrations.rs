//! The steps from an empty database to the present tables, in order, each a file of SQL that both databases read.
//! A step that was released is never edited: a new one follows.

use crate::dialect;
use sea_orm_migration::prelude::*;

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(Step("m0001_first_call", include_str!("migrations/m0001_first_call.sql"))),
            Box::new(Step("m0002_numbers", include_str!("migrations/m0002_numbers.sql"))),
            Box::new(Step("m0003_legs", include_str!("migrations/m0003_legs.sql"))),
        ]
    }
}

struct Step(&'static str, &'static str);

impl MigrationName for Step {
    fn name(&self) -> &str {
        self.0
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Step {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = dialect::definitions(manager.get_database_backend(), self.1);
        manager.get_connection().execute_unprepared(&sql).await.map(|_| ())
    }
}
