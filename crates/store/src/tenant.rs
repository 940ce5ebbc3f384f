//! The tenant filter: which rows a scope reaches, said once for each table and used by every query on it.

use crate::error::StoreError;
use crate::rows::{
    agent, agent_version, api_key, audit_event, call, connection, conversation, message, operation,
    phone_number, tool_call, usage, workspace,
};
use crate::scope::Scope;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DeleteMany, EntityTrait, IntoActiveModel, QueryFilter, Select, UpdateMany,
};
use std::fmt::Display;

/// A table whose rows belong to a workspace or an organization.
pub(crate) trait Tenant: EntityTrait {
    /// What a row is called when there is none.
    const WHAT: &'static str;
    /// The column of the id.
    const ID: Self::Column;

    /// Holds for the rows that the scope reaches.
    fn within(scope: &Scope) -> SimpleExpr;
}

macro_rules! tenants {
    ($($table:ident, $what:literal: $column:ident of $owner:ident;)*) => {$(
        impl Tenant for $table::Entity {
            const WHAT: &'static str = $what;
            const ID: $table::Column = $table::Column::Id;

            fn within(scope: &Scope) -> SimpleExpr {
                $table::Column::$column.eq(scope.$owner().as_str())
            }
        }
    )*};
}

tenants! {
    workspace, "workspace": Id of workspace;
    api_key, "API key": Workspace of workspace;
    connection, "connection": Organization of organization;
    agent, "agent": Workspace of workspace;
    agent_version, "agent version": Workspace of workspace;
    phone_number, "phone number": Workspace of workspace;
    operation, "operation": Workspace of workspace;
    conversation, "conversation": Workspace of workspace;
    call, "call": Workspace of workspace;
    message, "message": Workspace of workspace;
    tool_call, "tool call": Workspace of workspace;
    audit_event, "audit event": Workspace of workspace;
    usage, "usage": Workspace of workspace;
}

pub(crate) fn find<E: Tenant>(scope: &Scope) -> Select<E> {
    E::find().filter(E::within(scope))
}

pub(crate) fn update<E: Tenant>(scope: &Scope) -> UpdateMany<E> {
    E::update_many().filter(E::within(scope))
}

pub(crate) fn delete<E: Tenant>(scope: &Scope) -> DeleteMany<E> {
    E::delete_many().filter(E::within(scope))
}

/// The row of this id, or `NotFound`.
pub(crate) async fn row<E: Tenant>(
    db: &impl ConnectionTrait,
    scope: &Scope,
    id: &impl Display,
) -> Result<E::Model, StoreError> {
    let found = find::<E>(scope).filter(E::ID.eq(id.to_string())).one(db).await?;
    found.ok_or(StoreError::NotFound { what: E::WHAT })
}

/// Adds a row.
pub(crate) async fn insert<E>(db: &impl ConnectionTrait, row: E::Model) -> Result<(), sea_orm::DbErr>
where
    E: EntityTrait,
    E::Model: IntoActiveModel<E::ActiveModel>,
{
    E::insert(row.into_active_model()).exec_without_returning(db).await.map(|_| ())
}
