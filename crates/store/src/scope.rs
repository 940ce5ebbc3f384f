//! Who asks, and within which workspace: every tenant function takes a [`Scope`] and sees nothing outside of it.
//! It does not know what a role may do; that is decided where requests come in.

use offhook_core::entity::{Role, Workspace};
use offhook_core::{ApiKeyId, OrganizationId, WorkspaceId};
use std::fmt;

/// The right to act within one workspace and its organization. Made from a verified API key, or openly for a job of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    organization: OrganizationId,
    workspace: WorkspaceId,
    role: Role,
    actor: Actor,
}

/// Who acts: stands in the audit log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A program or person with an API key.
    ApiKey(ApiKeyId),
    /// A part of Offhook, by name.
    Job(&'static str),
}

impl Scope {
    /// A scope for a part of Offhook itself: a job, a command, a call in progress. The name stands in the audit log.
    pub fn system(workspace: &Workspace, job: &'static str) -> Self {
        Scope::of_job(workspace.organization.clone(), workspace.id.clone(), job)
    }

    pub(crate) fn of_job(organization: OrganizationId, workspace: WorkspaceId, job: &'static str) -> Self {
        Scope { organization, workspace, role: Role::Owner, actor: Actor::Job(job) }
    }

    pub(crate) fn of_key(
        organization: OrganizationId,
        workspace: WorkspaceId,
        role: Role,
        key: ApiKeyId,
    ) -> Self {
        Scope { organization, workspace, role, actor: Actor::ApiKey(key) }
    }

    /// The organization.
    pub fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// The workspace.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    /// What the actor may do.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Who acts.
    pub fn actor(&self) -> &Actor {
        &self.actor
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Actor::ApiKey(id) => write!(f, "api_key {id}"),
            Actor::Job(name) => write!(f, "job {name}"),
        }
    }
}
