//! What can go wrong, by what the caller can do about it. It does not know what the row was wanted for.

use crate::dialect;
use offhook_core::entity::UnknownWord;
use sea_orm::{ConnAcquireErr, DbErr, RuntimeErr, SqlErr};
use std::sync::Arc;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// There is no such row, or it is not this workspace's: which of the two is never told.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// Somebody else has it, or changed it first. Read it again and decide anew.
    #[error("this {what} is taken: {holder}")]
    Conflict {
        /// What was wanted.
        what: &'static str,
        /// Who or what has it.
        holder: String,
    },
    /// The call or conversation is over and takes nothing more.
    #[error("this {what} has ended")]
    Ended {
        /// What has ended.
        what: &'static str,
    },
    /// The request can never succeed as it is.
    #[error("this {what} cannot be stored: {reason}")]
    Invalid {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The database is locked or has no connection to spare. Trying again soon may help.
    #[error("the database is busy: it stayed locked, or gave no connection in time")]
    Busy(#[source] DbErr),
    /// The database cannot be reached. Calls go on; what they write must wait or be lost.
    #[error("the database cannot be reached")]
    Unavailable(#[source] DbErr),
    /// There is no space left. Somebody must make room.
    #[error("the disk that holds the database is full")]
    Full(#[source] DbErr),
    /// The database may not be written. Somebody must give the right to, or name another.
    #[error("the database is read-only for this process")]
    ReadOnly(#[source] DbErr),
    /// What is stored cannot be read back: damage, or a hand that wrote past the store.
    #[error("the stored {what} is damaged: {reason}")]
    Corrupt {
        /// Which row or column.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is none, and none was to be made.
    #[error("there is no database of offhook there")]
    Absent,
    /// A newer Offhook has used this database. Run that one.
    #[error("the database belongs to a newer version of offhook")]
    Newer(#[source] DbErr),
    /// The address of the database is not one that we understand.
    #[error(
        "`{scheme}` is no database address: write sqlite:///path/offhook.db, sqlite::memory: or postgres://user@host/name"
    )]
    Address {
        /// What stands before the first colon; the rest may hold a password.
        scheme: String,
    },
    /// A credential could not be sealed or opened.
    #[error("the vault refused")]
    Vault(#[source] VaultError),
    /// Anything else that the database says. A bug of ours.
    #[error("the database refused a statement")]
    Refused(#[source] DbErr),
}

/// Why a credential could not be sealed or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// It was sealed with a key that this process was not given.
    #[error(
        "the credential is sealed with key {key_id}, which was not given: give the vault that key as well"
    )]
    UnknownKey {
        /// The key's fingerprint.
        key_id: String,
    },
    /// It was changed, or belongs to another row.
    #[error("the credential was not sealed for this row with key {key_id}")]
    NotOurs {
        /// The key's fingerprint.
        key_id: String,
    },
    /// A key is not 32 bytes in hexadecimal.
    #[error("a vault key is 64 hexadecimal digits")]
    NotAKey,
}

impl StoreError {
    pub(crate) fn corrupt(what: impl Into<String>, reason: impl ToString) -> Self {
        StoreError::Corrupt { what: what.into(), reason: reason.to_string() }
    }

    /// Whether nothing can be written now, whatever it is: what must not be lost waits, also when somebody has to help.
    pub fn is_outage(&self) -> bool {
        self.is_transient() || matches!(self, StoreError::Full(_) | StoreError::ReadOnly(_))
    }

    /// Whether the same request may succeed a little later without anybody's doing.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Busy(_) | StoreError::Unavailable(_))
    }
}

impl From<DbErr> for StoreError {
    fn from(error: DbErr) -> Self {
        match error.sql_err() {
            Some(SqlErr::UniqueConstraintViolation(_)) => {
                return StoreError::Conflict { what: "row", holder: "another request was first".into() };
            }
            Some(SqlErr::ForeignKeyConstraintViolation(_)) => {
                return StoreError::Conflict {
                    what: "row",
                    holder: "another row refers to it, or it to none".into(),
                };
            }
            _ => {}
        }
        match &error {
            DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) => StoreError::Busy(error),
            DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed) => StoreError::Unavailable(error),
            DbErr::Conn(RuntimeErr::SqlxError(cause))
            | DbErr::Exec(RuntimeErr::SqlxError(cause))
            | DbErr::Query(RuntimeErr::SqlxError(cause)) => {
                let cause = Arc::clone(cause);
                dialect::classify(&cause, error)
            }
            _ => StoreError::Refused(error),
        }
    }
}

impl From<VaultError> for StoreError {
    fn from(error: VaultError) -> Self {
        StoreError::Vault(error)
    }
}

impl From<UnknownWord> for StoreError {
    fn from(error: UnknownWord) -> Self {
        StoreError::corrupt("word", error)
    }
}

/// Says what was taken where the database only says that a row was.
pub(crate) trait OnTaken<T> {
    fn on_taken(self, what: &'static str, holder: &str) -> Result<T, StoreError>;
}

impl<T> OnTaken<T> for Result<T, DbErr> {
    fn on_taken(self, what: &'static str, holder: &str) -> Result<T, StoreError> {
        self.map_err(|error| match StoreError::from(error) {
            StoreError::Conflict { .. } => StoreError::Conflict { what, holder: holder.into() },
            other => other,
        })
    }
}
