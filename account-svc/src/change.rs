//! The unit of work of a mutation: one transaction that holds the change, its events, its entries in the audit
//! log, and the response that a repeated call gets.

use std::ops::{Deref, DerefMut};

use prost::Message;
use sqlx::PgConnection;
use usher_runtime::{
    call::Call,
    database::{self, Scope, Tx},
    outbox::{self, OutboxEvent},
    request_key::RequestKey,
};
use uuid::Uuid;

use crate::{context::Context, db, domain::audit::AuditEntry, error::Error};

/// A mutation under way. Derefs to its connection. Dropped without a commit, it changes nothing.
pub struct Change {
    /// What use cases work with.
    pub context: Context,
    /// Who asks for the change, for `requested_by`.
    pub requested_by: String,
    /// The organization that events and entries belong to. Nil until a new organization is created.
    pub organization_id: Uuid,
    tx: Tx,
    actor: String,
    response_key: Option<(Uuid, RequestKey)>,
    events: Vec<OutboxEvent>,
    audit: Vec<AuditEntry>,
}

/// A mutation that was begun.
pub(crate) enum Begun<R> {
    /// It is new.
    Fresh(Box<Change>),
    /// An earlier call with the same request id was answered like this.
    Answered(R),
}

/// The response of a mutation that is durable. Only a commit makes one.
pub struct Committed<R>(R);

impl<R> Committed<R> {
    pub(crate) fn into_response(self) -> R {
        self.0
    }
}

impl Change {
    /// Begins a transaction and takes the call's request id, or finds the stored response. Calls with the
    /// same request id wait for each other.
    pub(crate) async fn begin<R: Message + Default>(
        context: &Context,
        call: &Call,
        scope: Scope,
        organization_id: Uuid,
    ) -> Result<Begun<R>, Error> {
        let mut tx = database::begin(&context.pool, scope).await?;
        let response_key = call
            .request_key
            .clone()
            .map(|request_key| (organization_id, request_key));
        if let Some((_, key)) = &response_key
            && !db::stored_response::claim(&mut tx, organization_id, key).await?
        {
            let stored = stored_response(&mut tx, organization_id, key).await?;
            tx.rollback().await?;
            // Purged between the two statements.
            return stored.map(Begun::Answered).ok_or(Error::ConcurrentUpdate);
        }
        Ok(Begun::Fresh(Box::new(Self {
            context: context.clone(),
            requested_by: call.subject.clone(),
            organization_id,
            tx,
            actor: call.subject.clone(),
            response_key,
            events: Vec::new(),
            audit: Vec::new(),
        })))
    }

    /// Names the Person on whose behalf the caller acts as the one who did it.
    pub fn act_as_person(&mut self, person_id: Uuid) {
        self.actor = format!("person:{person_id}");
    }

    /// Adds an event, to be published once the change is durable.
    pub fn emit(&mut self, event: OutboxEvent) {
        self.events.push(event);
    }

    /// Adds an entry to the audit log.
    pub fn audit(&mut self, entry: AuditEntry) {
        self.audit.push(entry);
    }

    /// Makes the change durable with its events, its entries and its response, and wakes the relay.
    ///
    /// # Errors
    /// If the database fails, or the use case left no entry for the audit log.
    pub async fn commit<R: Message>(self, response: R) -> Result<Committed<R>, Error> {
        if self.audit.is_empty() {
            return Err(Error::Internal(
                "a change without an entry in the audit log".to_owned(),
            ));
        }
        self.finish(response).await
    }

    /// Ends a call that found nothing to change.
    ///
    /// # Errors
    /// If the database fails, or the use case left an event or an entry.
    pub async fn commit_unchanged<R: Message>(self, response: R) -> Result<Committed<R>, Error> {
        if !self.events.is_empty() || !self.audit.is_empty() {
            return Err(Error::Internal(
                "an unchanged call with events or entries in the audit log".to_owned(),
            ));
        }
        self.finish(response).await
    }

    async fn finish<R: Message>(mut self, response: R) -> Result<Committed<R>, Error> {
        let organization_id = self.organization_id;
        let has_events = !self.events.is_empty();
        if has_events {
            let events = std::mem::take(&mut self.events);
            outbox::add(&mut self.tx, events).await?;
        }
        if !self.audit.is_empty() {
            db::audit::add(&mut self.tx, organization_id, &self.actor, &self.audit).await?;
        }
        if let Some((stored_under, key)) = &self.response_key {
            let encoded = response.encode_to_vec();
            db::stored_response::save(&mut self.tx, *stored_under, key.request_id, &encoded)
                .await?;
        }
        self.tx.commit().await?;
        if has_events {
            self.context.wake.notify();
        }
        Ok(Committed(response))
    }
}

/// The response that is stored under a call's request id, if there is one.
///
/// # Errors
/// If the request id was used for another request, or a call with it is under way.
pub async fn stored_response<R: Message + Default>(
    connection: &mut PgConnection,
    organization_id: Uuid,
    key: &RequestKey,
) -> Result<Option<R>, Error> {
    let Some(stored) =
        db::stored_response::get(connection, organization_id, key.request_id).await?
    else {
        return Ok(None);
    };
    if stored.request_hash != key.request_hash {
        return Err(Error::RequestIdReused(key.request_id));
    }
    let response = stored.response.ok_or(Error::ConcurrentUpdate)?;
    R::decode(response.as_slice())
        .map(Some)
        // The error may quote the response.
        .map_err(|_| Error::Internal("a stored response cannot be decoded".to_owned()))
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
