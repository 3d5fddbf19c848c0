//! RPCs whose requests name no organization: they find it by what the request names, as a token of a link does.

use data_encoding::BASE64URL_NOPAD;
use prost::Message as _;
use tonic::{Code, Request};
use usher_proto::{
    account::v1::{Account, CreateAccountRequest, account_service_client::AccountServiceClient},
    event::v1::{Event, event::Payload},
    rpc::Rpc,
};
use usher_runtime::seal::{self, PrivateKey, Sealed, TokenUse};

use crate::{
    Installation, authorization,
    call::{call, request_with_token},
};

/// Those that are served, and find their organization by the token in the request.
const BY_TOKEN: [&str; 2] = [
    "/usher.account.v1.ActivationService/InspectToken",
    "/usher.account.v1.ActivationService/ActivateAccount",
];

/// Those that are not served yet. One that is served moves to a list whose RPCs are tested.
const NOT_SERVED: [&str; 12] = [
    "/usher.account.v1.AccountService/ImportAccounts",
    "/usher.account.v1.ActivationService/RequestNewInvitation",
    "/usher.account.v1.ActivationService/ResetPassword",
    "/usher.account.v1.ActivationService/VerifyEmail",
    "/usher.account.v1.SharingService/ListLinkPrompts",
    "/usher.account.v1.SharingService/AcceptLink",
    "/usher.account.v1.SharingService/AcceptShare",
    "/usher.account.v1.SharingService/DismissLink",
    "/usher.account.v1.SharingService/DeclineShare",
    "/usher.account.v1.SharingService/ListShares",
    "/usher.account.v1.SharingService/RevokeShare",
    "/usher.notify.v1.FeedbackService/ReportFeedback",
];

/// Checks which RPCs the walk over organizations has skipped, each with the code that the right caller got.
pub fn check_skipped(skipped: &[(&Rpc, Code)]) {
    let served = |is_served: bool| {
        let chosen = skipped
            .iter()
            .filter(move |(_, code)| (*code != Code::Unimplemented) == is_served);
        let mut paths: Vec<_> = chosen.map(|(rpc, _)| rpc.path).collect();
        paths.sort_unstable();
        paths
    };
    let sorted = |list: &[&'static str]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    assert_eq!(served(true), sorted(&BY_TOKEN));
    assert_eq!(served(false), sorted(&NOT_SERVED));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_organization_is_answered_as_one_that_does_not_exist() {
    let installation = Installation::start().await;
    let own = installation.organization("own").await;
    let foreign = installation.organization("foreign").await;
    let token = installation.token_of_a_link(&foreign).await;
    let unknown = BASE64URL_NOPAD.encode(&[7; 32]);
    let portal_of = |organization_id: &str| {
        let token = installation.issuer.token("portal", organization_id);
        [authorization(&token)]
    };
    for path in BY_TOKEN {
        let rpc = Rpc::find(path).expect("an RPC");
        let answer = async |token: &str, organization_id: &str| {
            let body = request_with_token(rpc, token);
            let headers = portal_of(organization_id);
            call(installation.channel(rpc), path, body, &headers).await
        };
        let not_there = answer(&unknown, &own).await;
        assert_eq!(not_there.reason(), "TOKEN_UNKNOWN", "{path}");
        assert_eq!(answer(&token, &own).await, not_there, "{path}");
        // The link works, and works still, for whom it belongs to.
        let used = answer(&token, &foreign).await;
        assert_eq!(used.code, Code::Ok, "{path}: {used:?}");
    }
    installation.stop().await;
}

impl Installation {
    /// Invites a client of an organization; the token in their link.
    async fn token_of_a_link(&self, organization_id: &str) -> String {
        let mut request = Request::new(CreateAccountRequest {
            organization_id: organization_id.to_owned(),
            account: Some(Account {
                given_name: "Nora".to_owned(),
                family_name: "Quill".to_owned(),
                email: Some("nora@example.org".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        });
        let token = self.issuer.token("accounts.write", organization_id);
        let (name, value) = authorization(&token);
        let value = value.parse().expect("header");
        request.metadata_mut().insert(name, value);
        AccountServiceClient::new(self.accounts.clone())
            .create_account(request)
            .await
            .expect("account");

        // There is no broker: the event is still in the outbox.
        let mut admin = self.account_database.admin().await.expect("database");
        let payload: Vec<u8> = sqlx::query_scalar(
            "SELECT payload FROM outbox WHERE event_type = 'invitation.requested.v1'",
        )
        .fetch_one(&mut admin)
        .await
        .expect("event");
        let event = Event::decode(payload.as_slice()).expect("event");
        let Some(Payload::InvitationRequested(invitation)) = event.payload else {
            unreachable!("the event is of this type");
        };
        let sealed = invitation.sealed_token.clone().expect("a token");
        let sealed = Sealed {
            encapsulated_key: sealed.encapsulated_key,
            ciphertext: sealed.ciphertext,
        };
        let key = PrivateKey::from_base64(&self.private_key).expect("key");
        let token_use = TokenUse::of(&event.organization_id, &invitation);
        seal::open(&[key], &sealed, token_use)
            .expect("the token opens")
            .to_string()
    }
}
