//! `usher.account.v1.AuditService`.

use prost_types::Timestamp;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    ListAuditEventsRequest, ListAuditEventsResponse, audit_service_server::AuditService,
};
use usher_runtime::{
    call::Call,
    fields::{FieldParser, parse_uuid},
    page::Page,
    timestamp,
};

use super::{Service, encode};
use crate::{
    db::audit::AuditFilter,
    domain::{audit::AuditAction, text},
    use_cases::audit,
};

#[tonic::async_trait]
impl AuditService for Service {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let page = Page::parse(&request);
        let account_id = (!request.account_id.is_empty())
            .then(|| fields.take("account_id", parse_uuid(&request.account_id)))
            .flatten();
        let actor = fields.take("actor", text::optional(&request.actor, 128));
        let actions = fields.set("actions", request.actions, 50, |action| {
            AuditAction::filter(&action).map(|action| action.as_str().to_owned())
        });
        let occurred_from = time(&mut fields, "occurred_from", request.occurred_from);
        let occurred_before = time(&mut fields, "occurred_before", request.occurred_before);
        let (actor, actions) = fields.finish((actor, actions))?;
        let filter = AuditFilter {
            account_id,
            actor: Some(actor).filter(|actor| !actor.is_empty()),
            actions,
            occurred_from,
            occurred_before,
        };
        let page = page?;
        let rows = self
            .context
            .store
            .read(&call, async |tx| {
                audit::list(tx, call.organization_id, &filter, &page).await
            })
            .await?;
        let (audit_events, next_page_token) = page.cut(
            rows,
            |event| event.audit_event_id,
            |event| encode::audit_event(call.organization_id, event),
        );
        Ok(Response::new(ListAuditEventsResponse {
            audit_events,
            next_page_token,
        }))
    }
}

fn time(
    fields: &mut FieldParser,
    field: &str,
    time: Option<Timestamp>,
) -> Option<time::OffsetDateTime> {
    time.and_then(|time| {
        fields.take(
            field,
            timestamp::decode(time).ok_or("not a time of the years 1 to 9999"),
        )
    })
}
