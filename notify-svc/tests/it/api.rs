//! The gRPC API.

use tonic::Code;
use tonic_types::StatusExt as _;
use usher_proto::notify::v1::{
    self as proto, GetDeliveryRequest, ListDeliveriesRequest, ListSuppressionsRequest,
    PreviewTemplateRequest, PreviewValues, delivery_service_client::DeliveryServiceClient,
    suppression_service_client::SuppressionServiceClient,
    template_service_client::TemplateServiceClient,
};
use uuid::Uuid;

use crate::{
    requests::{Request, token_of},
    support::Service,
};

fn reason(status: &tonic::Status) -> String {
    status
        .get_details_error_info()
        .expect("an ErrorInfo")
        .reason
}

fn fields(status: &tonic::Status) -> Vec<String> {
    let details = status.get_details_bad_request().expect("a BadRequest");
    details
        .field_violations
        .into_iter()
        .map(|violation| violation.field)
        .collect()
}

#[tokio::test]
async fn deliveries_are_listed_by_pages_and_filters() {
    let service = Service::start(&["--recipient-gap=0s", "--recipient-limit=4/24h"]).await;
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let requests: Vec<_> = (0..7).map(|_| service.request("zoe@example.org")).collect();
    for request in &requests {
        service.publish(request.message()).await;
    }
    for request in &requests[..4] {
        service.reaches(request, proto::DeliveryState::Sent).await;
    }
    let organization_id = requests[0].organization_id.to_string();
    let all = ListDeliveriesRequest {
        organization_id: organization_id.clone(),
        page_size: 3,
        ..Default::default()
    };
    let mut seen = Vec::new();
    let mut page_token = String::new();
    let mut pages = 0;
    loop {
        let request = ListDeliveriesRequest {
            page_token: page_token.clone(),
            ..all.clone()
        };
        let page = client.list_deliveries(request).await.unwrap().into_inner();
        pages += 1;
        seen.extend(
            page.deliveries
                .into_iter()
                .map(|delivery| delivery.invitation_id),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    let mut expected: Vec<_> = requests
        .iter()
        .map(|request| request.requested.invitation_id.clone())
        .collect();
    expected.reverse();
    assert_eq!((pages, seen), (3, expected));

    let throttled = ListDeliveriesRequest {
        states: vec![proto::DeliveryState::Throttled.into()],
        ..all.clone()
    };
    let page = client
        .list_deliveries(throttled.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.deliveries.len(), 3);

    // A token of another list.
    let refused = client
        .list_deliveries(ListDeliveriesRequest {
            page_token,
            ..throttled
        })
        .await
        .unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::InvalidArgument, "PAGE_TOKEN_MISMATCH".to_owned())
    );
    assert_eq!(fields(&refused), ["page_token"]);

    // Another organization sees nothing.
    let elsewhere = ListDeliveriesRequest {
        organization_id: Uuid::now_v7().to_string(),
        ..all
    };
    assert!(
        client
            .list_deliveries(elsewhere)
            .await
            .unwrap()
            .into_inner()
            .deliveries
            .is_empty()
    );
    service.stop().await;
}

#[tokio::test]
async fn bad_requests_name_their_fields() {
    let service = Service::start(&[]).await;
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let refused = client
        .list_deliveries(ListDeliveriesRequest {
            organization_id: "x".to_owned(),
            invitation_id: "y".to_owned(),
            states: vec![1, 99],
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        fields(&refused),
        ["organization_id", "invitation_id", "states[1]"]
    );

    let organization_id = Uuid::now_v7().to_string();
    for (page_size, page_token, field) in [(-1, "", "page_size"), (0, "%%%", "page_token")] {
        let refused = client
            .list_deliveries(ListDeliveriesRequest {
                organization_id: organization_id.clone(),
                page_size,
                page_token: page_token.to_owned(),
                ..Default::default()
            })
            .await
            .unwrap_err();
        assert_eq!(fields(&refused), [field]);
    }

    let missing = client
        .get_delivery(GetDeliveryRequest::default())
        .await
        .unwrap_err();
    assert_eq!(fields(&missing), ["organization_id", "delivery_id"]);
    let unknown = client
        .get_delivery(GetDeliveryRequest {
            organization_id,
            delivery_id: Uuid::now_v7().to_string(),
        })
        .await
        .unwrap_err();
    assert_eq!(
        (unknown.code(), reason(&unknown)),
        (Code::NotFound, "DELIVERY_NOT_FOUND".to_owned())
    );
    let later = SuppressionServiceClient::new(service.channel.clone())
        .list_suppressions(ListSuppressionsRequest::default())
        .await
        .unwrap_err();
    assert_eq!(
        (later.code(), reason(&later)),
        (Code::Unimplemented, "NOT_IMPLEMENTED".to_owned())
    );
    service.stop().await;
}

#[tokio::test]
async fn repeated_fields_are_bounded_and_deduplicated() {
    let service = Service::start(&[]).await;
    let mut client = DeliveryServiceClient::new(service.channel.clone());
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    service.reaches(&request, proto::DeliveryState::Sent).await;
    let of_states = |states| ListDeliveriesRequest {
        organization_id: request.organization_id.to_string(),
        states,
        ..Default::default()
    };
    let sent = i32::from(proto::DeliveryState::Sent);
    let page = client
        .list_deliveries(of_states(vec![sent; 9]))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(page.deliveries.len(), 1);
    let refused = client
        .list_deliveries(of_states(vec![sent; 10]))
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["states"]);
    service.stop().await;
}

#[tokio::test]
async fn messages_over_the_limit_are_refused() {
    let service = Service::start(&["--max-message-bytes=1000"]).await;
    let mut templates = TemplateServiceClient::new(service.channel.clone());
    let mut deliveries = DeliveryServiceClient::new(service.channel.clone());
    let large = "x".repeat(1_000);
    let refusals = [
        templates
            .preview_template(PreviewTemplateRequest {
                locale: large.clone(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        deliveries
            .list_deliveries(ListDeliveriesRequest {
                page_token: large,
                ..Default::default()
            })
            .await
            .unwrap_err(),
    ];
    for refused in refusals {
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::OutOfRange, "MESSAGE_TOO_LARGE".to_owned())
        );
    }
    service.stop().await;
}

#[tokio::test]
async fn a_preview_is_what_is_sent() {
    let service = Service::start(&[]).await;
    let mut client = TemplateServiceClient::new(service.channel.clone());
    let request = service.request("zoe@example.org");
    service.publish(request.message()).await;
    service.reaches(&request, proto::DeliveryState::Sent).await;
    let taken = service.smtp.taken();
    let mail = mail_parser::MessageParser::default()
        .parse(&taken[0].raw)
        .unwrap();

    let preview = client
        .preview_template(preview_of(&request))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(mail.subject(), Some(preview.subject.as_str()));
    assert_eq!(preview.locale, "en");
    let sent = token_of(&request.requested.invitation_id);
    let text = preview.text.replace("sample-token-of-a-preview", &sent);
    let lines = |text: &str| {
        text.lines()
            .map(str::trim_end)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(
        lines(&mail.body_text(0).unwrap()).trim(),
        lines(&text).trim()
    );
    let html = preview.html.replace("sample-token-of-a-preview", &sent);
    assert_eq!(
        lines(&mail.body_html(0).unwrap()).trim(),
        lines(&html).trim()
    );
    service.stop().await;
}

fn preview_of(request: &Request) -> PreviewTemplateRequest {
    let requested = &request.requested;
    let face = requested.organization.clone().unwrap();
    PreviewTemplateRequest {
        organization_id: request.organization_id.to_string(),
        kind: proto::TemplateKind::Activation.into(),
        locale: "en-GB".to_owned(),
        values: Some(PreviewValues {
            given_name: requested.given_name.clone(),
            family_name: requested.family_name.clone(),
            organization_name: face.display_name,
            portal_url: face.portal_url,
            expire_time: requested.expire_time,
            ..Default::default()
        }),
    }
}

#[tokio::test]
async fn previews_refuse_what_they_cannot_show() {
    let service = Service::start(&[]).await;
    let mut client = TemplateServiceClient::new(service.channel.clone());
    let good = PreviewTemplateRequest {
        organization_id: Uuid::now_v7().to_string(),
        kind: proto::TemplateKind::ShareRequest.into(),
        locale: "fr-CA".to_owned(),
        values: None,
    };
    let preview = client
        .preview_template(good.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(preview.locale, "fr");

    let refused = client
        .preview_template(PreviewTemplateRequest::default())
        .await
        .unwrap_err();
    assert_eq!(fields(&refused), ["organization_id", "kind", "locale"]);
    let no_language = PreviewTemplateRequest {
        locale: "tlh".to_owned(),
        ..good.clone()
    };
    let refused = client.preview_template(no_language).await.unwrap_err();
    assert_eq!(reason(&refused), "TEMPLATE_NOT_FOUND");
    let script = PreviewTemplateRequest {
        values: Some(PreviewValues {
            portal_url: "javascript:alert(1)".to_owned(),
            ..Default::default()
        }),
        ..good
    };
    let refused = client.preview_template(script).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(fields(&refused), ["values.portal_url"]);
    service.stop().await;
}
