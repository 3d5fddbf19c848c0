//! `usher.account.v1.AccountService`.

use prost::Message as _;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    AccountFilter, AccountState, CheckDuplicatesRequest, CheckDuplicatesResponse,
    CreateAccountRequest, CreateAccountResponse, GetAccountRequest, GetAccountResponse,
    InvitePolicy, ListAccountsRequest, ListAccountsResponse, PlatformMatchPolicy,
    UpdateAccountRequest, UpdateAccountResponse, account_service_server::AccountService,
};
use usher_runtime::fields::{FieldParser, parse_uuid};

use usher_runtime::page::Page;

use super::{Service, decode, encode};
use crate::{
    accounts::{self, Decisions, Update},
    domain::text,
    duplicates,
    error::Error,
    invitations::Extras,
};

/// What `UpdateAccount` can change.
const PATHS: [&str; 12] = [
    "given_name",
    "family_name",
    "email",
    "birth_date",
    "phone",
    "members",
    "addresses",
    "contacts",
    "plan",
    "assigned_staff",
    "attributes",
    "locale",
];

#[tonic::async_trait]
impl AccountService for Service {
    async fn check_duplicates(
        &self,
        request: Request<CheckDuplicatesRequest>,
    ) -> Result<Response<CheckDuplicatesResponse>, Status> {
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let identity = decode::identity(&mut parser, &request);
        let (organization_id, identity) = parser
            .finish((organization_id, identity))
            .map_err(Error::from)?;
        let report = duplicates::check(&self.context, organization_id, &identity).await?;
        Ok(Response::new(CheckDuplicatesResponse {
            report: Some(encode::report(report)),
        }))
    }

    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let actor = super::subject(&request);
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "CreateAccount",
            &request.encode_to_vec(),
        );
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let extras = extras(&mut parser, &request.form_id, request.return_url);
        let decisions = decisions(
            &mut parser,
            request.invite,
            request.on_platform_match,
            request.duplicate_acknowledgement,
            &request.acknowledgement_reason,
            extras,
        );
        let account = request.account.unwrap_or_default();
        let profile = decode::profile_change(&mut parser, account, |_| true).into_profile();
        let (organization_id, profile) = parser
            .finish((organization_id, profile))
            .map_err(Error::from)?;
        let account = accounts::create(
            &self.context,
            organization_id,
            &profile,
            &decisions,
            &actor,
            key.as_ref(),
        )
        .await?;
        Ok(Response::new(CreateAccountResponse {
            account: Some(encode::account(account)),
        }))
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let request = request.into_inner();
        let [organization_id, account_id] = decode::ids([
            ("organization_id", &request.organization_id),
            ("account_id", &request.account_id),
        ])?;
        let account = accounts::get(&self.context, organization_id, account_id).await?;
        Ok(Response::new(GetAccountResponse {
            account: Some(encode::account(account)),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let request = request.into_inner();
        let query = ListAccountsRequest {
            page_size: 0,
            page_token: String::new(),
            ..request.clone()
        };
        let page = Page::parse(
            query.encode_to_vec(),
            request.page_size,
            &request.page_token,
        )?;
        let mut parser = FieldParser::default();
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let states = state_filter(&mut parser, request.filter.unwrap_or_default())?;
        let (organization_id,) = parser.finish((organization_id,)).map_err(Error::from)?;
        let listed = accounts::list(
            &self.context,
            organization_id,
            &states,
            page.after,
            page.limit(),
        )
        .await?;
        let (accounts, next_page_token) = page.cut(listed, |account| account.account_id);
        Ok(Response::new(ListAccountsResponse {
            accounts: accounts.into_iter().map(encode::account).collect(),
            next_page_token,
        }))
    }

    async fn update_account(
        &self,
        request: Request<UpdateAccountRequest>,
    ) -> Result<Response<UpdateAccountResponse>, Status> {
        let actor = super::subject(&request);
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "UpdateAccount",
            &request.encode_to_vec(),
        );
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let account = request.account.unwrap_or_default();
        let account_id = parser.take("account.account_id", parse_uuid(&account.account_id));
        let version = decode::etag(&account.etag)?;
        let decisions = decisions(
            &mut parser,
            request.invite,
            request.on_platform_match,
            request.duplicate_acknowledgement,
            &request.acknowledgement_reason,
            Extras::default(),
        );
        let fields = decode::update_mask(&mut parser, request.update_mask, &PATHS);
        let change = decode::profile_change(&mut parser, account, |field| {
            fields.iter().any(|path| path == field)
        });
        let (organization_id, account_id) = parser
            .finish((organization_id, account_id))
            .map_err(Error::from)?;
        let update = Update {
            account_id,
            version,
            change,
            fields,
            decisions,
        };
        let account =
            accounts::update(&self.context, organization_id, update, &actor, key.as_ref()).await?;
        Ok(Response::new(UpdateAccountResponse {
            account: Some(encode::account(account)),
        }))
    }
}

/// What staff add to an invitation.
pub(super) fn extras(parser: &mut FieldParser, form_id: &str, return_url: String) -> Extras {
    let form_id = parser.take("form_id", text::optional(form_id, 128));
    Extras {
        form_id: form_id.unwrap_or_default(),
        // Judged by the use case, which knows the organization's origins.
        return_url,
    }
}

fn decisions(
    parser: &mut FieldParser,
    invite: i32,
    on_platform_match: i32,
    acknowledgement: String,
    reason: &str,
    extras: Extras,
) -> Decisions {
    let invite = decode::known_enum(
        parser,
        "invite",
        invite,
        "INVITE_POLICY_AUTO, INVITE_POLICY_HOLD",
    );
    let on_platform_match = decode::known_enum(
        parser,
        "on_platform_match",
        on_platform_match,
        "PLATFORM_MATCH_POLICY_REFUSE, PLATFORM_MATCH_POLICY_REQUEST_SHARE",
    );
    let reason = parser.take("acknowledgement_reason", text::optional(reason, 500));
    Decisions {
        hold_invitation: invite == Some(InvitePolicy::Hold),
        request_share: on_platform_match == Some(PlatformMatchPolicy::RequestShare),
        acknowledgement,
        acknowledgement_reason: reason.unwrap_or_default(),
        extras,
    }
}

fn state_filter(parser: &mut FieldParser, filter: AccountFilter) -> Result<Vec<String>, Status> {
    let states = decode::states(
        parser,
        "filter.states",
        &filter.states,
        |state: AccountState| state.as_str_name(),
        "ACCOUNT_STATE_",
    );
    // A filter that is silently ignored would show the wrong accounts.
    let rest = AccountFilter {
        states: Vec::new(),
        ..filter
    };
    if rest == AccountFilter::default() {
        Ok(states)
    } else {
        Err(Status::unimplemented(
            "only filter.states is served by this version",
        ))
    }
}
