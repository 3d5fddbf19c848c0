//! What every use case works with.

use std::sync::Arc;

use prost::Message;
use sqlx::{PgConnection, PgPool};
use tonic::{Response, Status};
use usher_runtime::{
    call::Call,
    database::{self, Scope},
    relay::Wake,
    seal::PublicKey,
};
use uuid::Uuid;

use crate::{
    change::{Begun, Change, Committed},
    domain::{link::LinkRules, password::PasswordPolicy},
    error::Error,
    passwords::Passwords,
};

/// Rules that the deployment sets.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What a password must be.
    pub password: PasswordPolicy,
    /// Which URLs organizations may give.
    pub links: LinkRules,
}

/// Database, keys and rules. Cheap to clone.
#[derive(Clone)]
pub struct Context {
    /// Connections for calls; background work has its own.
    pub pool: PgPool,
    /// Wakes the relay when events were committed.
    pub wake: Wake,
    /// What tokens are sealed to.
    pub notify_key: Arc<PublicKey>,
    /// Rules of the deployment.
    pub rules: Arc<Rules>,
    /// Hashes passwords.
    pub passwords: Passwords,
}

impl Context {
    /// Runs a read in a transaction of the call's organization, or of the whole platform for calls that name
    /// none.
    ///
    /// # Errors
    /// If the work fails or the database is away.
    pub async fn read<T>(
        &self,
        call: &Call,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tx = database::begin(&self.pool, scope(call)).await?;
        let result = work(&mut tx).await;
        // Nothing was changed; a connection that cannot even roll back is not worth an error.
        let _ = tx.rollback().await;
        result
    }

    /// Runs a mutation as one unit of work in the call's organization, or on the whole platform for calls
    /// that name none. A repeated call gets the response of the first.
    ///
    /// # Errors
    /// If the work fails, the request id was used for another request, or the database is away. Nothing is
    /// changed then.
    pub async fn change<R: Message + Default>(
        &self,
        call: &Call,
        work: impl AsyncFnOnce(Change) -> Result<Committed<R>, Error>,
    ) -> Result<Response<R>, Status> {
        let response = self
            .change_in(call, scope(call), call.organization_id, work)
            .await?;
        Ok(Response::new(response))
    }

    /// As [`Self::change`], for calls whose organization is known by other means than a field of the request.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn change_in<R: Message + Default>(
        &self,
        call: &Call,
        scope: Scope,
        organization_id: Uuid,
        work: impl AsyncFnOnce(Change) -> Result<Committed<R>, Error>,
    ) -> Result<R, Error> {
        match Change::begin(self, call, scope, organization_id).await? {
            Begun::Answered(response) => Ok(response),
            Begun::Fresh(change) => Ok(work(*change).await?.into_response()),
        }
    }
}

fn scope(call: &Call) -> Scope {
    if call.organization_id.is_nil() {
        Scope::Platform
    } else {
        Scope::Organization(call.organization_id)
    }
}
