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
        self.read_in(scope(call)?, work).await
    }

    /// As [`Self::read`], for calls whose organization is known by other means than a field of the request:
    /// with the platform's scope, the work itself compares what it finds with [`Call::reach`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_in<T>(
        &self,
        scope: Scope,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tx = database::begin(&self.pool, scope).await?;
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
        let changed = self
            .change_in(call, scope(call)?, call.organization_id, work)
            .await?;
        Ok(Response::new(changed.into_response()))
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
    ) -> Result<Changed<R>, Error> {
        match Change::begin(self, call, scope, organization_id).await? {
            Begun::Answered(response) => Ok(Changed::Repeated(response)),
            Begun::Fresh(change) => Ok(Changed::Fresh(work(*change).await?.into_response())),
        }
    }
}

/// What a mutation answers.
#[derive(Debug)]
pub enum Changed<R> {
    /// It was carried out now.
    Fresh(R),
    /// An earlier call with the same request id was carried out.
    Repeated(R),
}

impl<R> Changed<R> {
    /// The response, whichever call was carried out.
    pub fn into_response(self) -> R {
        match self {
            Self::Fresh(response) | Self::Repeated(response) => response,
        }
    }
}

/// Whose rows a call sees. One that names no organization sees all of them only if its RPC belongs to none.
fn scope(call: &Call) -> Result<Scope, Error> {
    if !call.organization_id.is_nil() {
        Ok(Scope::Organization(call.organization_id))
    } else if call.is_of_platform {
        Ok(Scope::Platform)
    } else {
        Err(Error::Internal(
            "a call that names no organization needs a scope of its own".to_owned(),
        ))
    }
}
