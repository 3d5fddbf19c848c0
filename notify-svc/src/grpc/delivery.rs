//! `usher.notify.v1.DeliveryService`.

use std::time::Duration;

use tonic::{Request, Response, Status, codegen::BoxStream};
use usher_proto::notify::v1::{
    self as proto, CancelDeliveryRequest, CancelDeliveryResponse, GetDeliveryRequest,
    GetDeliveryResponse, GetThrottleRequest, GetThrottleResponse, ListDeliveriesRequest,
    ListDeliveriesResponse, RetryDeliveryRequest, RetryDeliveryResponse, ThrottleLimit,
    WatchDeliveriesRequest, WatchDeliveriesResponse, delivery_service_server::DeliveryService,
};
use usher_runtime::{
    call::Call, change::Change, database::Scope, fields::parse_uuid, page::Page, timestamp,
};

use super::Service;
use crate::{
    db::delivery::{Delivery, DeliveryFilter},
    domain::{DeliveryState, MailKind, Recipient, UnknownValue},
    error::Error,
    mail::Envelope,
    use_cases::{
        deliveries::{self, Watch},
        throttle_state,
    },
};

/// How often a watch looks for changes.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl DeliveryService for Service {
    async fn get_delivery(
        &self,
        request: Request<GetDeliveryRequest>,
    ) -> Result<Response<GetDeliveryResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let delivery_id = fields.take("delivery_id", parse_uuid(&request.delivery_id));
        let (delivery_id,) = fields.finish((delivery_id,))?;
        let delivery = self
            .store
            .read(&call, async |tx| {
                deliveries::read(tx, call.organization_id, delivery_id).await
            })
            .await?;
        Ok(Response::new(GetDeliveryResponse {
            delivery: Some(encode(delivery, &self.envelope)),
        }))
    }

    async fn list_deliveries(
        &self,
        request: Request<ListDeliveriesRequest>,
    ) -> Result<Response<ListDeliveriesResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let page = Page::parse(&request);
        let invitation_id = (!request.invitation_id.is_empty())
            .then(|| fields.take("invitation_id", parse_uuid(&request.invitation_id)))
            .flatten();
        let max_states = DeliveryState::ALL.len();
        let states = fields.set("states", request.states, max_states, decode_state);
        let (states,) = fields.finish((states,))?;
        let page = page?;
        let filter = DeliveryFilter {
            invitation_id,
            states,
        };
        let rows = self
            .store
            .read(&call, async |tx| {
                deliveries::list(tx, call.organization_id, &filter, &page).await
            })
            .await?;
        let (deliveries, next_page_token) = page.cut(
            rows,
            |delivery| delivery.delivery_id,
            |delivery| encode(delivery, &self.envelope),
        );
        Ok(Response::new(ListDeliveriesResponse {
            deliveries,
            next_page_token,
        }))
    }

    async fn cancel_delivery(
        &self,
        request: Request<CancelDeliveryRequest>,
    ) -> Result<Response<CancelDeliveryResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let delivery_id = fields.take("delivery_id", parse_uuid(&request.delivery_id));
        let (delivery_id,) = fields.finish((delivery_id,))?;
        let (limits, metrics) = (&self.recipient_limits, &self.metrics);
        let work = async |change: &mut Change| {
            let delivery = deliveries::cancel(change, limits, metrics, delivery_id).await?;
            Ok::<_, Error>(CancelDeliveryResponse {
                delivery: Some(encode(delivery, &self.envelope)),
            })
        };
        let changed = self
            .store
            .change_in(&call, Scope::Platform, call.organization_id, work)
            .await?;
        self.due.scheduled.notify();
        Ok(Response::new(changed.into_response()))
    }

    async fn retry_delivery(
        &self,
        request: Request<RetryDeliveryRequest>,
    ) -> Result<Response<RetryDeliveryResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let delivery_id = fields.take("delivery_id", parse_uuid(&request.delivery_id));
        let (delivery_id,) = fields.finish((delivery_id,))?;
        let (limits, metrics) = (&self.recipient_limits, &self.metrics);
        let work = async |change: &mut Change| {
            let delivery = deliveries::retry(change, limits, metrics, delivery_id).await?;
            Ok::<_, Error>(RetryDeliveryResponse {
                delivery: Some(encode(delivery, &self.envelope)),
            })
        };
        let changed = self
            .store
            .change_in(&call, Scope::Platform, call.organization_id, work)
            .await?;
        self.due.ready.notify();
        self.due.scheduled.notify();
        Ok(Response::new(changed.into_response()))
    }

    async fn watch_deliveries(
        &self,
        request: Request<WatchDeliveriesRequest>,
    ) -> Result<Response<BoxStream<WatchDeliveriesResponse>>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let invitation_id = (!request.invitation_id.is_empty())
            .then(|| fields.take("invitation_id", parse_uuid(&request.invitation_id)))
            .flatten();
        fields.finish(())?;
        let (store, envelope) = (self.store.clone(), self.envelope.clone());
        // Before the answer begins: who has its head misses nothing that comes.
        let mut watch = Watch::start(store, call.organization_id, invitation_id).await?;
        let responses = call.produce(|sender| async move {
            loop {
                let changes = watch.changes().await?;
                let has_seen_all = changes.is_empty();
                for delivery in changes {
                    let delivery = Some(encode(delivery, &envelope));
                    sender.send(WatchDeliveriesResponse { delivery }).await?;
                }
                if has_seen_all {
                    tokio::select! {
                        () = sender.gone() => return Ok(()),
                        () = tokio::time::sleep(WATCH_INTERVAL) => {}
                    }
                }
            }
        })?;
        Ok(Response::new(responses))
    }

    async fn get_throttle(
        &self,
        request: Request<GetThrottleRequest>,
    ) -> Result<Response<GetThrottleResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let recipient = fields.take("recipient", Recipient::parse(&request.recipient));
        let (recipient,) = fields.finish((recipient,))?;
        let (organization_id, limits) = (call.organization_id, &self.recipient_limits);
        // Other organizations' emails count too.
        let (mut tx, _place) = self.store.begin(Scope::Platform, organization_id).await?;
        let shared = &self.shared_limits;
        let state = throttle_state::show(&mut tx, limits, shared, organization_id, &recipient);
        let state = state.await.map_err(Error::from)?;
        let limits = state.limits.into_iter().map(|(name, time)| ThrottleLimit {
            name: name.to_owned(),
            next_slot_time: Some(timestamp::encode(time)),
        });
        Ok(Response::new(GetThrottleResponse {
            limits: limits.collect(),
            next_slot_time: Some(timestamp::encode(state.next_slot_time)),
        }))
    }
}

fn decode_state(value: i32) -> Result<DeliveryState, String> {
    proto::DeliveryState::try_from(value)
        .map_err(|_| UnknownValue("delivery state"))
        .and_then(DeliveryState::try_from)
        .map_err(|_| format!("{value} is not a delivery state"))
}

fn encode(delivery: Delivery, envelope: &Envelope) -> proto::Delivery {
    proto::Delivery {
        delivery_id: delivery.delivery_id.to_string(),
        organization_id: delivery.organization_id.to_string(),
        invitation_id: delivery
            .invitation_id
            .map(|id| id.to_string())
            .unwrap_or_default(),
        send_number: delivery.send_number.unsigned_abs(),
        template: MailKind::try_from(delivery.kind.as_str())
            .map_or(proto::TemplateKind::Unspecified, Into::into)
            .into(),
        locale: delivery.locale,
        mail_class: proto::MailClass::from(delivery.mail_class).into(),
        recipient: delivery.recipient.masked(),
        state: proto::DeliveryState::from(delivery.state).into(),
        next_attempt_time: delivery.next_attempt_time.map(timestamp::encode),
        attempt_count: delivery.attempt_count.unsigned_abs(),
        message_id: envelope.message_id(delivery.delivery_id),
        smtp_status: delivery.smtp_status.unwrap_or_default(),
        reason: delivery.reason.unwrap_or_default(),
        create_time: Some(timestamp::encode(delivery.create_time)),
        update_time: Some(timestamp::encode(delivery.update_time)),
        sent_time: delivery.sent_time.map(timestamp::encode),
        expire_time: Some(timestamp::encode(delivery.expire_time)),
    }
}
