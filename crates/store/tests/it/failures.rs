use crate::database::{Clock, Database, hours, key, node, options, receptionist, setting};
use offhook_core::Pii;
use offhook_core::entity::CallEvent;
use offhook_store::{LogBatch, Page, Store, StoreError, Vault};
use sea_orm::ConnectionTrait;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

on_both![
    a_database_used_by_a_newer_version_is_refused,
    processes_that_open_at_once_agree_on_the_tables,
    a_damaged_row_is_named,
    a_database_that_must_be_there_is_not_made,
];

async fn open(url: &str) -> Result<Store, StoreError> {
    let clock = Arc::new(Clock::default());
    Store::open(url, options(&clock, Vault::new(&key(1)))).await
}

async fn a_database_used_by_a_newer_version_is_refused(db: Database) {
    let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m9999_from_tomorrow', 0)";
    db.raw().await.execute_unprepared(newer).await.unwrap();
    let error = open(&db.url).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer(_)), "{error:?}");
}

async fn processes_that_open_at_once_agree_on_the_tables(db: Database) {
    let empty = if db.is_sqlite() {
        db.url.replace("offhook.db", "empty.db")
    } else {
        let name = db.url.rsplit('/').next().unwrap();
        db.raw().await.execute_unprepared(&format!("CREATE DATABASE empty_{name}")).await.unwrap();
        db.url.replace(name, &format!("empty_{name}"))
    };
    let opens: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn({
                let url = empty.clone();
                async move { open(&url).await }
            })
        })
        .collect();
    for opened in opens {
        let store = opened.await.unwrap().unwrap();
        store.ping().await.unwrap();
        store.close().await.unwrap();
    }
}

async fn a_database_that_must_be_there_is_not_made(db: Database) {
    let existing = async |url: &str| {
        let clock = Arc::new(Clock::default());
        Store::open_existing(url, options(&clock, Vault::new(&key(1)))).await
    };
    existing(&db.url).await.unwrap();
    let empty = if db.is_sqlite() {
        db.url.replace("offhook.db", "empty.db")
    } else {
        let name = db.url.rsplit('/').next().unwrap();
        db.raw().await.execute_unprepared(&format!("CREATE DATABASE absent_{name}")).await.unwrap();
        db.url.replace(name, &format!("absent_{name}"))
    };
    for _ in 0..2 {
        let absent = existing(&empty).await.unwrap_err();
        assert!(matches!(absent, StoreError::Absent), "{absent:?}");
    }
    assert!(!Path::new(empty.strip_prefix("sqlite://").unwrap_or("/nowhere")).exists());
}

async fn a_damaged_row_is_named(db: Database) {
    let tenant = db.tenant("acme").await;
    db.raw().await.execute_unprepared("UPDATE connection SET config = '{\"edge\"'").await.unwrap();
    let error = db.store.connection(&tenant.scope, &tenant.connection.id).await.unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what == "connection.config"), "{error:?}");
    assert!(!error.is_transient());
}

#[tokio::test]
async fn an_address_of_no_database_is_named_without_its_password() {
    for url in ["mysql://root:hunter2@db/offhook", "offhook.db", ""] {
        let error = open(url).await.unwrap_err();
        assert!(matches!(error, StoreError::Address { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn a_store_in_memory_works_as_long_as_it_is_open() {
    let store = open("sqlite::memory:").await.unwrap();
    let first = store.create_first("acme", &hours("main")).await.unwrap().unwrap();
    let scope = store.scope_for_api_key(&first.key).await.unwrap();
    let saves: Vec<_> = (0..20)
        .map(|i| {
            let (store, scope) = (store.clone(), scope.clone());
            tokio::spawn(async move { store.create_agent(&scope, &receptionist(&i.to_string())).await })
        })
        .collect();
    for save in saves {
        save.await.unwrap().unwrap();
    }
    assert_eq!(store.agents(&scope, &Page::first(100)).await.unwrap().rows.len(), 20);
}

#[tokio::test]
async fn a_file_that_is_no_database_or_nowhere_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("letter.db");
    std::fs::write(&path, "Dear Sir or Madam, ".repeat(100)).unwrap();
    let error = open(&format!("sqlite://{}", path.display())).await.unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    let error = open("sqlite:///nonexistent/folder/offhook.db").await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_database_that_may_not_be_written_says_so() {
    let db = Database::sqlite().await;
    let error = open(&format!("{}?mode=ro", db.url)).await.unwrap_err();
    assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
}

/// As somebody whom the file's mode binds: root, who usually runs these tests in a container, may write everything.
#[tokio::test]
async fn a_file_without_the_right_to_write_says_so() {
    const AGAIN: &str = "OFFHOOK_TEST_READ_ONLY_FILE";
    if let Some(url) = setting(AGAIN) {
        let error = open(&url).await.unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly(_)), "{error:?}");
        return;
    }
    let db = Database::sqlite().await;
    let path = Path::new(db.url.strip_prefix("sqlite://").unwrap()).to_owned();
    let url = db.url.clone();
    let folder = db.close().await;
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o444)).unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let test = std::env::current_exe().unwrap();
    let again = "failures::a_file_without_the_right_to_write_says_so";
    let root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let mut command = if root {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(&test);
        command
    } else {
        Command::new(&test)
    };
    let output = command.args([again, "--exact", "--nocapture"]).env(AGAIN, &url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}

#[tokio::test]
async fn a_database_that_another_process_has_locked_is_busy_and_works_afterwards() {
    let db = Database::sqlite().await;
    let (_, scope) = db.workspace("acme").await;
    let other = db.raw().await;
    other.execute_unprepared("BEGIN IMMEDIATE").await.unwrap();
    let error = db.store.create_agent(&scope, &receptionist("late")).await.unwrap_err();
    assert!(matches!(error, StoreError::Busy(_)) && error.is_transient(), "{error:?}");
    assert!(db.store.agents(&scope, &Page::first(9)).await.unwrap().rows.is_empty(), "reading goes on");
    other.execute_unprepared("ROLLBACK").await.unwrap();
    db.store.create_agent(&scope, &receptionist("late")).await.unwrap();
}

#[tokio::test]
async fn a_database_file_that_was_removed_is_unavailable() {
    let db = Database::sqlite().await;
    let tenant = db.tenant("acme").await;
    let lease = db.call(&tenant, "CA1", &node("a")).await;
    let path = db.url.strip_prefix("sqlite://").unwrap();
    for file in [path.to_owned(), format!("{path}-wal"), format!("{path}-shm")] {
        std::fs::remove_file(file).unwrap();
    }
    let event =
        CallEvent { seq: 0, at_us: 0, input: Pii::new("{}".into()), orders: String::new(), digest: 0 };
    for refused in [
        db.store.ping().await,
        db.store.append_events(&[LogBatch { lease: &lease, events: &[event] }]).await.map(|_| ()),
        db.store.create_agent(&tenant.scope, &receptionist("late")).await.map(|_| ()),
    ] {
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_postgres_that_refuses_connections_is_unavailable() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = open(&format!("postgres://offhook:hunter2@127.0.0.1:{port}/offhook")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)) && error.is_transient(), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_postgres_that_goes_away_is_unavailable_and_is_found_again() {
    let Some(db) = Database::postgres().await else { return };
    let (_, scope) = db.workspace("acme").await;
    let name = db.url.rsplit('/').next().unwrap().to_owned();
    let admin = sea_orm::Database::connect(setting("OFFHOOK_TEST_POSTGRES").unwrap()).await.unwrap();
    let kill = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
    admin.execute_unprepared(&kill).await.unwrap();
    let mut met = None;
    for _ in 0..20 {
        match db.store.agents(&scope, &Page::first(1)).await {
            Ok(_) => break,
            Err(error) => met = Some(error),
        }
    }
    assert!(matches!(met, None | Some(StoreError::Unavailable(_))), "{met:?}");
    db.store.create_agent(&scope, &receptionist("after")).await.unwrap();

    admin.execute_unprepared(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    for _ in 0..3 {
        let error = db.store.agents(&scope, &Page::first(1)).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_postgres_with_a_full_disk_says_so() {
    let Some(db) = Database::postgres().await else { return };
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT ON agent EXECUTE FUNCTION full_disk()";
    let (_, scope) = db.workspace("acme").await;
    db.raw().await.execute_unprepared(full).await.unwrap();
    let error = db.store.create_agent(&scope, &receptionist("late")).await.unwrap_err();
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(
        error.is_outage() && !error.is_transient(),
        "what must not be lost waits until somebody has made room"
    );
}
