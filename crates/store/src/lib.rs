//! The store: the only SQL, and the only place where one workspace's rows are told from another's. It runs on SQLite and on PostgreSQL
//! from one set of tables and queries, and knows nothing of telephones, HTTP or models.
//!
//! Whoever acts needs a [`Scope`]; a row outside of it is [`StoreError::NotFound`], as if it did not exist. Whoever drives a call holds
//! its [`CallLease`], which only the store hands out. Functions with neither are the system's own and say so.

mod agents;
mod apply;
mod audit;
mod call_log;
mod calls;
mod connections;
mod conversations;
mod convert;
mod dialect;
mod environment;
mod error;
mod keeping;
mod lease;
mod legs;
mod migrations;
mod numbers;
mod operations;
mod organizations;
mod page;
mod rows;
mod scope;
mod tenant;
mod vault;

use keeping::Keys;
use migrations::Migrator;
use sea_orm::{ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbErr};
use sea_orm_migration::{MigratorTrait, SchemaManager};
use std::fmt;
use std::sync::Arc;

pub use agents::AgentSpec;
pub use apply::{Applied, Apply, Change, Declaration, DeclaredNumber};
pub use call_log::{CallLog, LogBatch, LogFrom};
pub use calls::{Begun, Finished, FinishedCall, NewCall, NewMessage, NewToolCall, NewUsage};
pub use connections::{ConnectionSpec, MissingKey};
pub use conversations::CallFilter;
pub use environment::{Environment, system_environment};
pub use error::{StoreError, VaultError};
pub use keeping::{ReadKeys, SECRET_OVERLAP_S};
pub use lease::{CallLease, NODE_SILENT_MS, Node};
pub use numbers::{HeldNumber, NumberSpec, RingTarget};
pub use operations::{LineEnd, LineNumber, NewLine, NewOperation, OperationLease, Progress};
pub use organizations::{First, WorkspaceSpec};
pub use page::{Listed, PAGE_ROWS_MAX, Page};
pub use scope::{Actor, Scope};
pub use vault::{Vault, VaultKey};

/// An open database with its tables up to date. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Store {
    pools: dialect::Pools,
    keys: Keys,
    environment: Arc<dyn Environment>,
}

/// The table in which the migrations that were made are written down.
const MIGRATIONS: &str = "seaql_migrations";

/// Whether a database may be made where there is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    Anew,
    Existing,
}

/// What a store needs from outside.
pub struct StoreOptions {
    /// Seals and opens credentials.
    pub vault: Vault,
    /// The clock, and what ids and keys are made of.
    pub environment: Arc<dyn Environment>,
}

impl Store {
    /// Opens the database at `sqlite:///path/offhook.db` (made if it is missing), `sqlite::memory:` or `postgres://user@host/name`, and brings
    /// its tables up to date. Processes that open one database at once wait for each other here.
    pub async fn open(url: &str, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_at(url, options, Start::Anew).await
    }

    /// The same where a database of Offhook's must be: else it is `Absent`, and nothing is made.
    pub async fn open_existing(url: &str, options: StoreOptions) -> Result<Store, StoreError> {
        Store::open_at(url, options, Start::Existing).await
    }

    async fn open_at(url: &str, options: StoreOptions, start: Start) -> Result<Store, StoreError> {
        let pools = dialect::connect(url, start).await?;
        let tx = dialect::begin_migration(&pools.write).await?;
        dialect::alone(&tx, dialect::Alone::Migrate).await?;
        if start == Start::Existing && !SchemaManager::new(&tx).has_table(MIGRATIONS).await? {
            return Err(StoreError::Absent);
        }
        let not_ours = |error| match error {
            DbErr::Custom(_) => StoreError::Newer(error),
            other => other.into(),
        };
        let pending = Migrator::get_pending_migrations(&tx).await.map_err(not_ours)?.len();
        if pending > 0 {
            Migrator::up(&tx, None).await.map_err(not_ours)?;
            dialect::check_references(&tx).await?;
        }
        // A database that needs no migration may still be one that we must not write.
        tx.execute_unprepared(&format!("UPDATE {MIGRATIONS} SET version = version WHERE 1 = 0")).await?;
        dialect::commit_migration(tx, &pools.write).await?;
        Ok(Store { pools, keys: Keys::new(options.vault), environment: options.environment })
    }

    /// Whether the database answers and is the one that was opened.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.pools.still_there()?;
        self.read().execute_unprepared("SELECT 1").await?;
        Ok(())
    }

    /// Waits until what is under way is written, then lets go of the database.
    pub async fn close(self) -> Result<(), StoreError> {
        self.pools.read.close().await?;
        Ok(self.pools.write.close().await?)
    }

    fn read(&self) -> &DatabaseConnection {
        &self.pools.read
    }

    /// For one statement that writes; more than one needs [`Store::begin`].
    fn write(&self) -> Result<&DatabaseConnection, StoreError> {
        self.pools.still_there()?;
        Ok(&self.pools.write)
    }

    async fn begin(&self) -> Result<DatabaseTransaction, StoreError> {
        dialect::begin_write(self.write()?).await
    }

    fn now_us(&self) -> i64 {
        self.environment.now_us()
    }

    fn ulid(&self) -> String {
        environment::ulid(&*self.environment)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("database", &self.pools.write.get_database_backend())
            .finish_non_exhaustive()
    }
}
