//! How calls use the database: a read in one transaction, and a mutation as one unit of work. That is one
//! transaction with the change, its events, its entries in the audit log, and the response that a repeated call
//! gets.
//!
//! Both services have the same tables `stored_responses`, `outbox` and `audit_events`.

mod records;
mod stored_response;

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use prost::Message;
use sqlx::{PgConnection, PgPool};
use tonic::Response;
use uuid::Uuid;

use self::records::{Records, StoredResponse};
pub use self::stored_response::get as stored_response;
use crate::{
    audit::{self, AuditEntry},
    call::Call,
    database::{self, Place, Scope, Shares, Tx, within},
    error::CommonError,
    housekeeping::Purge,
    outbox::OutboxEvent,
    request_key::RequestKey,
    wake::Wake,
};

/// Longest that a call waits for its transaction to begin, whatever it waits for: its organization's other calls, a
/// connection, the database.
const BEGIN_LIMIT: Duration = Duration::from_secs(8);

/// A service's database, as calls use it. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    /// Connections for calls; background work has its own.
    pub pool: PgPool,
    /// Wakes the relay: events are in the outbox.
    pub outbox: Wake,
    shares: Shares,
}

impl Store {
    /// A store on `pool`, whose relay `outbox` wakes.
    #[must_use]
    pub fn new(pool: PgPool, outbox: Wake) -> Self {
        let shares = Shares::of(&pool);
        Self {
            pool,
            outbox,
            shares,
        }
    }

    /// Begins a transaction on one of the connections that the call's organization may use; of calls that name none, the
    /// nil UUID, on any. The place is its one among them.
    ///
    /// # Errors
    /// If no connection is to be had in time or the database is away.
    pub async fn begin(
        &self,
        scope: Scope,
        organization_id: Uuid,
    ) -> Result<(Tx, Option<Place>), CommonError> {
        within(BEGIN_LIMIT, async {
            let place = if organization_id.is_nil() {
                None
            } else {
                let place = self.shares.enter(organization_id).await;
                Some(place.ok_or(CommonError::Overloaded)?)
            };
            Ok((database::begin(&self.pool, scope).await?, place))
        })
        .await
    }

    /// Runs a read in a transaction of the call's organization, or of the whole platform for calls that name
    /// none.
    ///
    /// # Errors
    /// If the work fails or the database is away.
    pub async fn read<T, E: From<CommonError>>(
        &self,
        call: &Call,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.read_in(scope(call)?, work).await
    }

    /// As [`Self::read`], for calls whose organization is known by other means than a field of the request:
    /// with the platform's scope, the work itself compares what it finds with [`Call::reach`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn read_in<T, E: From<CommonError>>(
        &self,
        scope: Scope,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
    ) -> Result<T, E> {
        let organization_id = match scope {
            Scope::Organization(organization_id) => organization_id,
            Scope::Platform => Uuid::nil(),
        };
        let (mut tx, _place) = self.begin(scope, organization_id).await?;
        // Nothing is changed: dropped, the transaction is rolled back while the caller has its answer already.
        work(&mut tx).await
    }

    /// Runs a mutation as one unit of work in the call's organization, or on the whole platform for calls
    /// that name none. When `work` succeeds, its change, events and entries are committed with its response, and
    /// the relay is woken.
    ///
    /// A repeated call gets the response of the first and changes nothing: its work is undone, or has failed
    /// already. So `work` must have no effect outside of its transaction.
    ///
    /// Requests with a secret are refused: see [`Self::change_in`].
    ///
    /// # Errors
    /// If the work fails or leaves no entry for the audit log, the request id was used for another request, or
    /// the database is away. Nothing is changed then.
    pub async fn change<R: Message + Default, E: From<CommonError>>(
        &self,
        call: &Call,
        work: impl AsyncFnOnce(&mut Change) -> Result<R, E>,
    ) -> Result<Response<R>, E> {
        if call.has_secret {
            return Err(CommonError::Internal(
                "a stored response would be given to whoever repeats the request with another secret".to_owned(),
            )
            .into());
        }
        let changed = self
            .change_in(call, scope(call)?, call.organization_id, work)
            .await?;
        Ok(Response::new(changed.into_response()))
    }

    /// As [`Self::change`], for calls whose organization is known by other means than a field of the request, and
    /// for those with a secret: the caller verifies it before it gives [`Changed::Repeated`] away, since the
    /// request id alone proves nothing.
    ///
    /// # Errors
    /// As [`Self::change`].
    pub async fn change_in<R: Message + Default, E: From<CommonError>>(
        &self,
        call: &Call,
        scope: Scope,
        organization_id: Uuid,
        work: impl AsyncFnOnce(&mut Change) -> Result<R, E>,
    ) -> Result<Changed<R>, E> {
        let (tx, place) = self.begin(scope, organization_id).await?;
        let mut change = Change::new(tx, call, organization_id);
        let result = match work(&mut change).await {
            Ok(response) => {
                let has_events = !change.events.is_empty();
                match change.commit(&response).await? {
                    Outcome::Committed if has_events => {
                        self.outbox.notify();
                        return Ok(Changed::Fresh(response));
                    }
                    Outcome::Committed => return Ok(Changed::Fresh(response)),
                    Outcome::RequestIdTaken => Err(CommonError::ConcurrentUpdate.into()),
                }
            }
            Err(error) => {
                // A connection that cannot even roll back is not worth another error.
                let _ = change.tx.rollback().await;
                Err(error)
            }
        };
        // What follows takes a connection of its own.
        drop(place);
        match self.stored_response(call, scope, organization_id).await? {
            Some(response) => Ok(Changed::Repeated(response)),
            None => result,
        }
    }

    /// The response of an earlier call with the same request id. Looked for only after the work failed or the
    /// request id turned out to be taken: most calls are the first of their id, and pay nothing for it.
    async fn stored_response<R: Message + Default>(
        &self,
        call: &Call,
        scope: Scope,
        organization_id: Uuid,
    ) -> Result<Option<R>, CommonError> {
        let Some(key) = &call.request_key else {
            return Ok(None);
        };
        self.read_in(scope, async |tx| {
            stored_response(tx, organization_id, key).await
        })
        .await
    }
}

/// Whose rows a call sees. One that names no organization sees all of them only if its RPC belongs to none.
fn scope(call: &Call) -> Result<Scope, CommonError> {
    if !call.organization_id.is_nil() {
        Ok(Scope::Organization(call.organization_id))
    } else if call.is_of_platform {
        Ok(Scope::Platform)
    } else {
        Err(CommonError::Internal(
            "a call that names no organization needs a scope of its own".to_owned(),
        ))
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

/// A mutation under way. Derefs to its connection. [`Store::change`] makes it, and commits it.
pub struct Change {
    /// Who asks for the change, as authenticated; for `requested_by`.
    pub requested_by: String,
    /// The organization that events and entries belong to. Nil until a new organization is created.
    pub organization_id: Uuid,
    tx: Tx,
    actor: String,
    response_key: Option<(Uuid, RequestKey)>,
    events: Vec<OutboxEvent>,
    audit: Vec<AuditEntry>,
    is_unchanged: bool,
}

/// How a commit ended.
enum Outcome {
    /// All is durable.
    Committed,
    /// Nothing was changed: another call has committed with the same request id.
    RequestIdTaken,
}

impl Change {
    fn new(tx: Tx, call: &Call, organization_id: Uuid) -> Self {
        let response_key = call
            .request_key
            .clone()
            .map(|request_key| (organization_id, request_key));
        Self {
            requested_by: call.subject.clone(),
            organization_id,
            tx,
            actor: call.subject.clone(),
            response_key,
            events: Vec::new(),
            audit: Vec::new(),
            is_unchanged: false,
        }
    }

    /// Names the Person on whose behalf the caller acts as the one who did it.
    pub fn act_as_person(&mut self, person_id: Uuid) {
        self.actor = format!("person:{person_id}");
    }

    /// Adds an event, to be published once the change is durable.
    pub fn emit(&mut self, event: OutboxEvent) {
        self.events.push(event);
    }

    /// Adds an entry to the audit log. Every change has one.
    pub fn audit(&mut self, entry: AuditEntry) {
        self.audit.push(entry);
    }

    /// Says that there was nothing to change: the call leaves no event and no entry in the audit log.
    pub fn mark_unchanged(&mut self) {
        self.is_unchanged = true;
    }

    async fn commit<R: Message>(mut self, response: &R) -> Result<Outcome, CommonError> {
        if self.audit.is_empty() != self.is_unchanged {
            return Err(CommonError::Internal(
                "a change without an entry in the audit log, or an entry without a change"
                    .to_owned(),
            ));
        }
        if self.is_unchanged && !self.events.is_empty() {
            return Err(CommonError::Internal(
                "an event without a change".to_owned(),
            ));
        }
        let records = Records {
            organization_id: self.organization_id,
            actor: &self.actor,
            events: self.events,
            audit: &self.audit,
            response: self
                .response_key
                .as_ref()
                .map(|(stored_under, key)| StoredResponse {
                    organization_id: *stored_under,
                    key,
                    response: response.encode_to_vec(),
                }),
        };
        if !records.write(&mut self.tx).await? {
            self.tx.rollback().await?;
            return Ok(Outcome::RequestIdTaken);
        }
        self.tx.commit().await?;
        Ok(Outcome::Committed)
    }
}

impl Deref for Change {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.tx
    }
}

impl DerefMut for Change {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.tx
    }
}

/// What is deleted of these tables when it is old; the times are in the queries.
#[must_use]
pub fn purges() -> [Purge; 2] {
    [
        Purge::new("stored_responses", |connection, limit| {
            Box::pin(stored_response::purge(connection, limit))
        }),
        Purge::new("audit_events", |connection, limit| {
            Box::pin(audit::purge(connection, limit))
        }),
    ]
}
