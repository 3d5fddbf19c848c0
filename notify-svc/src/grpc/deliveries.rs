//! `usher.notify.v1.DeliveryService`.

use sqlx::PgPool;
use tonic::{Request, Response, Status};
use usher_proto::notify::v1::{
    self as pb, GetDeliveryRequest, GetDeliveryResponse, ListDeliveriesRequest,
    ListDeliveriesResponse, delivery_service_server::DeliveryService,
};
use usher_runtime::{
    database::{Scope, begin},
    fields::{FieldParser, InvalidFields, parse_uuid},
    page::Page,
    timestamp,
};
use uuid::Uuid;

use super::status::Error;
use crate::{
    db::deliveries::{DeliveryFilter, DeliveryRow, deliveries_list, delivery_get},
    domain::{DeliveryState, MailClass, MailKind, Recipient, UnknownValue},
    mail::Envelope,
};

/// Shows single emails.
pub(super) struct Deliveries {
    pub pool: PgPool,
    pub envelope: Envelope,
}

#[tonic::async_trait]
impl DeliveryService for Deliveries {
    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        let (organization_id, delivery_id) = decode_get(request.get_ref()).map_err(Error::from)?;
        let delivery = self.get(organization_id, delivery_id).await?;
        Ok(Response::new(GetDeliveryResponse {
            delivery: Some(delivery),
        }))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }
}

impl Deliveries {
    async fn get(&self, organization_id: Uuid, delivery_id: Uuid) -> Result<pb::Delivery, Error> {
        let mut transaction = begin(&self.pool, Scope::Organization(organization_id)).await?;
        let row = delivery_get(&mut transaction, organization_id, delivery_id).await?;
        transaction.commit().await?;
        let row = row.ok_or(Error::DeliveryNotFound(delivery_id))?;
        Ok(self.encode(row)?)
    }

    async fn list(&self, request: ListDeliveriesRequest) -> Result<ListDeliveriesResponse, Error> {
        let filter = decode_filter(&request)?;
        let query = query_of(&request);
        let page = Page::parse(query, request.page_size, &request.page_token)?;
        let mut transaction =
            begin(&self.pool, Scope::Organization(filter.organization_id)).await?;
        let rows = deliveries_list(&mut transaction, &filter, page.after, page.limit()).await?;
        transaction.commit().await?;
        let (rows, next_page_token) = page.cut(rows, |row| row.delivery_id);
        let deliveries = rows.into_iter().map(|row| self.encode(row));
        Ok(ListDeliveriesResponse {
            deliveries: deliveries.collect::<Result<_, _>>()?,
            next_page_token,
        })
    }

    fn encode(&self, row: DeliveryRow) -> Result<pb::Delivery, UnknownValue> {
        let state = DeliveryState::try_from(row.state.as_str())?;
        let mail_class = MailClass::try_from(row.mail_class.as_str())?;
        let template = match MailKind::try_from(row.kind.as_str())? {
            MailKind::Activation => pb::TemplateKind::Activation,
            MailKind::ShareRequest => pb::TemplateKind::ShareRequest,
        };
        let recipient =
            Recipient::parse(&row.recipient).map_err(|_| UnknownValue("kind of address"))?;
        Ok(pb::Delivery {
            delivery_id: row.delivery_id.to_string(),
            organization_id: row.organization_id.to_string(),
            invitation_id: row.invitation_id.to_string(),
            send_number: row.send_number.unsigned_abs(),
            template: template.into(),
            locale: row.locale,
            mail_class: pb::MailClass::from(mail_class).into(),
            recipient: recipient.masked(),
            state: pb::DeliveryState::from(state).into(),
            next_attempt_time: row.next_attempt_time.map(timestamp::encode),
            attempt_count: row.attempt_count.unsigned_abs(),
            message_id: self.envelope.message_id(row.delivery_id),
            smtp_status: row.smtp_status.unwrap_or_default(),
            reason: row.reason.unwrap_or_default(),
            create_time: Some(timestamp::encode(row.create_time)),
            update_time: Some(timestamp::encode(row.update_time)),
            sent_time: row.sent_time.map(timestamp::encode),
            expire_time: Some(timestamp::encode(row.expire_time)),
        })
    }
}

fn decode_get(request: &GetDeliveryRequest) -> Result<(Uuid, Uuid), InvalidFields> {
    let mut fields = FieldParser::default();
    let organization_id = fields.take("organization_id", parse_uuid(&request.organization_id));
    let delivery_id = fields.take("delivery_id", parse_uuid(&request.delivery_id));
    fields.finish((organization_id, delivery_id))
}

fn decode_filter(request: &ListDeliveriesRequest) -> Result<DeliveryFilter, InvalidFields> {
    let mut fields = FieldParser::default();
    let organization_id = fields.take("organization_id", parse_uuid(&request.organization_id));
    let invitation_id = if request.invitation_id.is_empty() {
        None
    } else {
        fields.take("invitation_id", parse_uuid(&request.invitation_id))
    };
    let mut states = Vec::new();
    for (index, state) in request.states.iter().enumerate() {
        let state = pb::DeliveryState::try_from(*state)
            .ok()
            .and_then(|state| DeliveryState::try_from(state).ok())
            .ok_or("not a delivery state");
        states.extend(fields.take(&format!("states[{index}]"), state));
    }
    let (organization_id,) = fields.finish((organization_id,))?;
    Ok(DeliveryFilter {
        organization_id,
        invitation_id,
        states,
    })
}

/// What a page token is bound to: all but the page itself.
fn query_of(request: &ListDeliveriesRequest) -> Vec<u8> {
    prost::Message::encode_to_vec(&ListDeliveriesRequest {
        page_size: 0,
        page_token: String::new(),
        ..request.clone()
    })
}
