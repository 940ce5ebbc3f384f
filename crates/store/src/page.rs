//! Lists come newest first, a page at a time, each page beginning after the last row of the one before. Ids sort by time, so an id is
//! the cursor: a row added meanwhile moves nothing.

use crate::convert;
use crate::error::StoreError;
use crate::tenant::Tenant;
use sea_orm::sea_query::ValueType;
use sea_orm::{ColumnTrait, ConnectionTrait, ModelTrait, QueryFilter, QueryOrder, QuerySelect, Select};

/// Rows that one page holds at most.
pub const PAGE_ROWS_MAX: u32 = 200;

/// Which part of a list is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// [`Listed::next`] of the page before; `None` for the newest rows.
    pub after: Option<String>,
    /// How many rows; at least 1, at most [`PAGE_ROWS_MAX`].
    pub limit: u32,
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed<T> {
    /// The rows, newest first.
    pub rows: Vec<T>,
    /// Where the next page begins; `None` when there is none.
    pub next: Option<String>,
}

impl Page {
    /// The newest rows.
    pub fn first(limit: u32) -> Self {
        Page { after: None, limit }
    }

    /// The page that begins after this cursor.
    pub fn after(cursor: impl Into<String>, limit: u32) -> Self {
        Page { after: Some(cursor.into()), limit }
    }
}

pub(crate) async fn list<E, T>(
    db: &impl ConnectionTrait,
    rows: Select<E>,
    page: &Page,
) -> Result<Listed<T>, StoreError>
where
    E: Tenant,
    T: TryFrom<E::Model, Error = StoreError>,
{
    let limit = page.limit.clamp(1, PAGE_ROWS_MAX) as usize;
    let mut rows = rows.order_by_desc(E::ID).limit(limit as u64 + 1);
    if let Some(after) = &page.after {
        rows = rows.filter(E::ID.lt(after.as_str()));
    }
    let mut rows = rows.all(db).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = if more { rows.last() } else { None };
    let next = last.map(|row| <String as ValueType>::unwrap(row.get(E::ID)));
    Ok(Listed { rows: convert::all(rows)?, next })
}
