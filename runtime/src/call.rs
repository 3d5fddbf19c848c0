//! One RPC under way: who calls, for which organization, under which request id.

use tonic::{Code, Request, Status, codegen::BoxStream};
use tracing::{Span, field};
use usher_proto::{
    account::v1::ErrorReason,
    rpc::{Rpc, RpcRequest},
};
use uuid::Uuid;

use crate::{
    caller::{Caller, Reach},
    error::RichError,
    fields::{FieldParser, parse_uuid},
    request_key::RequestKey,
    stream::{Producers, Sender},
};

/// What every use case knows of the RPC that it serves. Having one means that the caller may call the RPC,
/// and that the organization in the request is within the caller's reach.
#[derive(Debug, Clone)]
pub struct Call {
    /// Who calls, as authenticated; for the audit log and `requested_by`.
    pub subject: String,
    /// The organization that the request names; nil if it names none.
    pub organization_id: Uuid,
    /// Which organizations the caller may name: for requests that name theirs in another way, as a token
    /// does.
    pub reach: Reach,
    /// Whether the RPC belongs to no organization: its scope begins with `platform/`.
    pub is_of_platform: bool,
    /// Whether the request has a secret, which `request_key` does not compare.
    pub has_secret: bool,
    /// The key that makes a repeated call safe; `None` if the caller sent no `request_id`.
    pub request_key: Option<RequestKey>,
    /// Only for calls that are answered with a stream.
    producers: Option<Producers>,
}

impl Call {
    /// Opens a request: checks the caller against the organization that it names, before anything is looked
    /// up. The parser has read `organization_id` and `request_id` and goes on with the other fields, so that
    /// all faults stand in one answer.
    ///
    /// # Errors
    /// `ORGANIZATION_MISMATCH`, whether the organization exists or not.
    pub fn open<R: RpcRequest>(request: Request<R>) -> Result<(Self, FieldParser, R), Status> {
        let rpc = Rpc::find(R::PATH).ok_or_else(RichError::fault)?;
        let (_, extensions, message) = request.into_parts();
        // Missing only if the RPC was reached around the layers of the server.
        let caller = extensions.get::<Caller>().ok_or_else(RichError::fault)?;
        let reach = caller.reach(rpc).map_err(RichError::from)?;

        let mut fields = FieldParser::default();
        let organization_id = message
            .organization_id()
            .and_then(|id| fields.take(R::ORGANIZATION_FIELD, parse_organization_id(id)));
        if organization_id.is_some_and(|id| !reach.covers(id)) {
            return Err(organization_mismatch().into());
        }
        let organization_id = organization_id.unwrap_or_default();
        if !organization_id.is_nil() {
            // Declared by the span of every call.
            Span::current().record("organization.id", field::display(organization_id));
        }
        let request_key = (!message.request_id().is_empty())
            .then(|| fields.take("request_id", parse_uuid(message.request_id())))
            .flatten()
            .map(|request_id| RequestKey::new(request_id, &message));
        let call = Self {
            subject: caller.subject.clone(),
            organization_id,
            reach,
            is_of_platform: rpc.is_of_platform(),
            has_secret: R::HAS_SECRET,
            request_key,
            producers: extensions.get::<Producers>().cloned(),
        };
        Ok((call, fields, message))
    }

    /// Lets `producer` answer a streaming call, in a task that its caller cannot drop and that shutdown waits
    /// for. The stream ends when it returns, with its error if it has one, and with INTERNAL if it panics.
    ///
    /// When nobody takes further responses, `producer` learns it from [`Sender::send`] and [`Sender::gone`],
    /// and is dropped if it goes on for longer than a call may take. Statements have no end of their own: put
    /// [`within`](crate::database::within) around them.
    ///
    /// # Errors
    /// INTERNAL if the response of the RPC is no stream.
    pub fn produce<T, F>(
        &self,
        producer: impl FnOnce(Sender<T>) -> F,
    ) -> Result<BoxStream<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let producers = self.producers.as_ref().ok_or_else(RichError::fault)?;
        Ok(producers.produce(producer))
    }
}

/// The nil UUID stands for no organization, in a call as in the tables.
fn parse_organization_id(id: &str) -> Result<Uuid, &'static str> {
    match parse_uuid(id) {
        Ok(id) if id.is_nil() => Err("not the id of an organization"),
        Err(_) if !id.is_empty() => Err(
            "not a UUID: give the `organization_id` that CreateOrganization answered, not the slug",
        ),
        parsed => parsed,
    }
}

fn organization_mismatch() -> RichError {
    RichError::new(
        Code::PermissionDenied,
        ErrorReason::OrganizationMismatch,
        "organization_id: not the organization of the caller's identity; use that one, or an identity with \
         the scope for the whole platform",
    )
}
