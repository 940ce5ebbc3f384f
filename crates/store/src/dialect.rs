//! Everything in which SQLite and PostgreSQL differ: how they are opened, how a writer locks, how they name their failures.
//! It knows no table; the queries are the same on both.

use crate::Start;
use crate::error::StoreError;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, ConnectOptions as _, postgres::PgConnectOptions};
use sea_orm::{
    ConnectOptions, ConnectionTrait, Database, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr,
    RuntimeErr, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a statement waits for a lock or a connection before it is `Busy`.
const PATIENCE: Duration = Duration::from_secs(5);
/// How soon a database that was busy while it was opened is tried again.
const BUSY_AGAIN_AFTER: Duration = Duration::from_millis(20);
/// How long PostgreSQL may work on one statement.
const POSTGRES_STATEMENT_LIMIT_MS: &str = "30000";
/// Connections a PostgreSQL server gives to one process.
const POSTGRES_CONNECTIONS: u32 = 16;
/// Connections that read a SQLite file; one more writes.
const SQLITE_READERS: u32 = 4;
/// Rows that one statement adds: both databases bound the number of parameters (32,766 and 65,535).
pub(crate) const ROWS_PER_INSERT: usize = 1_000;
/// A connection idle for longer is tried before it is used.
const IDLE_BEFORE_PING: Duration = Duration::from_secs(30);

/// A database with its way to read and its way to write.
#[derive(Clone, Debug)]
pub(crate) struct Pools {
    pub read: DatabaseConnection,
    pub write: DatabaseConnection,
    file: Option<OpenFile>,
}

/// The file that SQLite has open, to notice when another or none stands in its place: SQLite would write on into the removed one.
#[derive(Clone, Debug)]
struct OpenFile {
    path: Arc<Path>,
    inode: u64,
}

impl Pools {
    /// Whether what is written now will be found again.
    pub fn still_there(&self) -> Result<(), StoreError> {
        match &self.file {
            Some(file) if inode(&file.path) != Some(file.inode) => {
                let gone = format!("{} was removed or replaced while it was open", file.path.display());
                Err(StoreError::Unavailable(DbErr::Conn(RuntimeErr::Internal(gone))))
            }
            _ => Ok(()),
        }
    }
}

/// What only one process at a time may do.
#[derive(Clone, Copy)]
pub(crate) enum Alone {
    Migrate = 0x0ff_0001,
    CreateFirst = 0x0ff_0002,
}

pub(crate) async fn connect(url: &str, start: Start) -> Result<Pools, StoreError> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "sqlite" => connect_sqlite(url, start).await,
        "postgres" | "postgresql" => connect_postgres(url).await,
        _ => Err(StoreError::Address { scheme: scheme.chars().take(20).collect() }),
    }
}

/// One connection writes and others read: writers then wait for each other in a fair queue of ours, where SQLite would let them
/// poll for its lock, and a reader never waits.
async fn connect_sqlite(url: &str, start: Start) -> Result<Pools, StoreError> {
    let in_memory = url.contains(":memory:") || url.contains("mode=memory");
    let address = url.parse::<SqliteConnectOptions>().map_err(connection_failed)?;
    let path: Arc<Path> = address.get_filename().into();
    if start == Start::Existing && !path.exists() {
        return Err(StoreError::Absent);
    }
    let mut options = options(url);
    options.max_connections(1).min_connections(1).idle_timeout(None).max_lifetime(None);
    options.map_sqlx_sqlite_opts(move |sqlite| {
        sqlite
            .create_if_missing(start == Start::Anew)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(PATIENCE)
    });
    let write = connect_patiently(&options).await?;
    if in_memory {
        return Ok(Pools { read: write.clone(), write, file: None });
    }
    let file = inode(&path).map(|inode| OpenFile { path, inode });
    options.max_connections(SQLITE_READERS);
    options.map_sqlx_sqlite_opts(|sqlite| sqlite.busy_timeout(PATIENCE).pragma("query_only", "ON"));
    Ok(Pools { read: Database::connect(options).await?, write, file })
}

/// The first process to open a file turns its journal into a write-ahead log, and for that moment SQLite refuses all others at once.
async fn connect_patiently(options: &ConnectOptions) -> Result<DatabaseConnection, StoreError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Database::connect(options.clone()).await.map_err(StoreError::from) {
            Err(StoreError::Busy(_)) if Instant::now() < deadline => sleep(BUSY_AGAIN_AFTER).await,
            other => return other,
        }
    }
}

async fn connect_postgres(url: &str) -> Result<Pools, StoreError> {
    let unreachable = |error| StoreError::from(connection_failed(error));
    // The pool keeps trying a server that refuses and then says only that time ran out; one attempt of our own tells why.
    let attempt = url.parse::<PgConnectOptions>().map_err(unreachable)?;
    sqlx::Connection::close(attempt.connect().await.map_err(unreachable)?).await.map_err(unreachable)?;
    let mut options = options(url);
    options.max_connections(POSTGRES_CONNECTIONS).test_before_acquire_if_idle_for(IDLE_BEFORE_PING);
    options.map_sqlx_postgres_opts(|postgres| {
        postgres.application_name("offhook").options([("statement_timeout", POSTGRES_STATEMENT_LIMIT_MS)])
    });
    let pool = Database::connect(options).await?;
    Ok(Pools { read: pool.clone(), write: pool, file: None })
}

fn connection_failed(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

#[cfg(unix)]
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|file| file.ino())
}

#[cfg(not(unix))]
fn inode(path: &Path) -> Option<u64> {
    path.exists().then_some(0)
}

/// Statements are never logged: not even their text helps who runs this.
fn options(url: &str) -> ConnectOptions {
    let mut options = ConnectOptions::new(url);
    options.acquire_timeout(PATIENCE).sqlx_logging(false).record_stmt_in_spans(false);
    options
}

/// Begins a transaction that means to write. SQLite takes its lock at once, because a reader that becomes a writer may be refused.
pub(crate) async fn begin_write(write: &DatabaseConnection) -> Result<DatabaseTransaction, StoreError> {
    let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
    let options = match write.get_database_backend() {
        DbBackend::Sqlite => TransactionOptions { sqlite_transaction_mode, ..Default::default() },
        _ => TransactionOptions::default(),
    };
    Ok(write.begin_with_options(options).await?)
}

/// Begins a transaction that may put new tables in the place of old ones. SQLite would follow foreign keys when an old one is
/// dropped, and delete what refers to it; whether it does is the connection's, and cannot be changed within a transaction.
pub(crate) async fn begin_migration(write: &DatabaseConnection) -> Result<DatabaseTransaction, StoreError> {
    if write.get_database_backend() == DbBackend::Sqlite {
        write.execute_unprepared("PRAGMA foreign_keys = OFF").await?;
    }
    begin_write(write).await
}

/// Whether every row that refers to another finds it, where the database itself did not watch.
pub(crate) async fn check_references(tx: &DatabaseTransaction) -> Result<(), StoreError> {
    if tx.get_database_backend() != DbBackend::Sqlite {
        return Ok(());
    }
    let check = Statement::from_string(DbBackend::Sqlite, "PRAGMA foreign_key_check");
    let Some(row) = tx.query_one_raw(check).await? else { return Ok(()) };
    let (table, parent): (String, String) = (row.try_get("", "table")?, row.try_get("", "parent")?);
    Err(StoreError::corrupt(table, format!("a row refers to a row of {parent} that is not there")))
}

/// Ends what [`begin_migration`] has begun.
pub(crate) async fn commit_migration(
    tx: DatabaseTransaction,
    write: &DatabaseConnection,
) -> Result<(), StoreError> {
    tx.commit().await?;
    if write.get_database_backend() == DbBackend::Sqlite {
        write.execute_unprepared("PRAGMA foreign_keys = ON").await?;
    }
    Ok(())
}

/// Waits until no other process does the same; ends with the transaction. SQLite has but one writer anyway.
pub(crate) async fn alone(tx: &DatabaseTransaction, what: Alone) -> Result<(), StoreError> {
    if tx.get_database_backend() == DbBackend::Postgres {
        let lock = format!("SELECT pg_advisory_xact_lock({})", what as i64);
        tx.execute_raw(Statement::from_string(DbBackend::Postgres, lock)).await?;
    }
    Ok(())
}

/// Sorts a driver's failure by what can be done about it.
pub(crate) fn classify(cause: &sqlx::Error, error: DbErr) -> StoreError {
    let database = match cause {
        sqlx::Error::Database(database) => database,
        sqlx::Error::PoolTimedOut => return StoreError::Busy(error),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            return StoreError::Unavailable(error);
        }
        _ => return StoreError::Refused(error),
    };
    let code = database.code().unwrap_or_default();
    match code.parse::<u32>() {
        Ok(number) if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() => {
            classify_sqlite(number, error)
        }
        _ => classify_postgres(&code, error),
    }
}

/// Result codes of <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
fn classify_sqlite(code: u32, error: DbErr) -> StoreError {
    match code & 0xff {
        5 | 6 => StoreError::Busy(error),
        8 => StoreError::ReadOnly(error),
        10 | 14 => StoreError::Unavailable(error),
        11 | 26 => StoreError::corrupt("database file", error),
        13 => StoreError::Full(error),
        _ => StoreError::Refused(error),
    }
}

/// SQLSTATE of <https://www.postgresql.org/docs/15/errcodes-appendix.html>; the first two letters are the class.
fn classify_postgres(state: &str, error: DbErr) -> StoreError {
    match state {
        "53100" => StoreError::Full(error),
        "25006" | "42501" => StoreError::ReadOnly(error),
        "40001" | "40P01" | "53300" | "55P03" | "57014" => StoreError::Busy(error),
        "3D000" => StoreError::Unavailable(error),
        _ if ["08", "28", "53", "57", "58"].iter().any(|class| state.starts_with(class)) => {
            StoreError::Unavailable(error)
        }
        _ if state.starts_with("22") => StoreError::Invalid { what: "row", reason: error.to_string() },
        _ if state.starts_with("XX") => StoreError::corrupt("database", error),
        _ => StoreError::Refused(error),
    }
}

/// Table definitions in the database's own words. PostgreSQL says BYTEA where SQLite says BLOB; all else is spelt alike.
pub(crate) fn definitions(backend: DbBackend, sql: &str) -> String {
    match backend {
        DbBackend::Postgres => sql.replace("BLOB", "BYTEA"),
        _ => sql.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn run(db: &DatabaseConnection, sql: &str) -> Result<(), StoreError> {
        Ok(db.execute_unprepared(sql).await.map(|_| ())?)
    }

    #[tokio::test]
    async fn a_full_disk_says_so_and_reading_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let pools = connect(&format!("sqlite://{}", folder.path().join("small.db").display()), Start::Anew)
            .await
            .unwrap();
        run(&pools.write, "CREATE TABLE filling (bytes BLOB NOT NULL); PRAGMA max_page_count = 20")
            .await
            .unwrap();
        let fill = "INSERT INTO filling VALUES (zeroblob(10000))";
        let mut filled = Ok(());
        for _ in 0..100 {
            filled = run(&pools.write, fill).await;
            if filled.is_err() {
                break;
            }
        }
        assert!(matches!(filled, Err(StoreError::Full(_))), "{filled:?}");
        run(&pools.read, "SELECT count(*) FROM filling").await.unwrap();
        run(&pools.write, "PRAGMA max_page_count = 1000").await.unwrap();
        run(&pools.write, fill).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_for_reading_does_not_write() {
        let folder = tempfile::tempdir().unwrap();
        let pools = connect(&format!("sqlite://{}", folder.path().join("a.db").display()), Start::Anew)
            .await
            .unwrap();
        let written = run(&pools.read, "CREATE TABLE forbidden (id TEXT)").await;
        assert!(matches!(written, Err(StoreError::ReadOnly(_))), "{written:?}");
    }

    #[tokio::test]
    async fn a_table_can_be_put_in_the_place_of_one_that_others_refer_to() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("a.db").display());
        let pools = connect(&url, Start::Anew).await.unwrap();
        let tables = "CREATE TABLE parent (id TEXT PRIMARY KEY); INSERT INTO parent VALUES ('p');
            CREATE TABLE child (parent TEXT REFERENCES parent ON DELETE CASCADE); INSERT INTO child VALUES ('p')";
        run(&pools.write, tables).await.unwrap();
        let tx = begin_migration(&pools.write).await.unwrap();
        let replaced = "CREATE TABLE newer (id TEXT PRIMARY KEY, name TEXT); INSERT INTO newer SELECT id, '' FROM parent;
            DROP TABLE parent; ALTER TABLE newer RENAME TO parent";
        tx.execute_unprepared(replaced).await.unwrap();
        check_references(&tx).await.unwrap();
        tx.execute_unprepared("DELETE FROM parent").await.unwrap();
        let orphaned = check_references(&tx).await;
        assert!(
            matches!(&orphaned, Err(StoreError::Corrupt { what, .. }) if what == "child"),
            "{orphaned:?}"
        );
        tx.execute_unprepared("INSERT INTO parent VALUES ('p', '')").await.unwrap();
        commit_migration(tx, &pools.write).await.unwrap();
        run(&pools.write, "DELETE FROM parent").await.unwrap();
        let children = Statement::from_string(DbBackend::Sqlite, "SELECT parent FROM child");
        assert!(
            pools.read.query_one_raw(children).await.unwrap().is_none(),
            "references are not followed again"
        );
    }

    #[test]
    fn failures_of_postgres_are_sorted_by_what_helps() {
        let sorted = |state| classify_postgres(state, DbErr::Custom(state.into()));
        assert!(matches!(sorted("53100"), StoreError::Full(_)));
        assert!(matches!(sorted("25006"), StoreError::ReadOnly(_)));
        for state in ["40001", "40P01", "53300", "55P03", "57014"] {
            assert!(matches!(sorted(state), StoreError::Busy(_)), "{state}");
        }
        for state in ["08006", "28P01", "3D000", "57P01", "57P03", "58030"] {
            assert!(matches!(sorted(state), StoreError::Unavailable(_)), "{state}");
        }
        assert!(matches!(sorted("XX001"), StoreError::Corrupt { .. }));
        assert!(matches!(sorted("42601"), StoreError::Refused(_)));
    }
}
