//! `usher.account.v1.InvitationService`.

use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    GetInvitationRequest, GetInvitationResponse, ListInvitationsRequest, ListInvitationsResponse,
    RevokeInvitationRequest, RevokeInvitationResponse, SendInvitationRequest,
    SendInvitationResponse, SendInvitationResult, invitation_service_server::InvitationService,
    send_invitation_request::Target, send_invitation_result::Outcome,
};
use usher_runtime::{
    call::Call,
    fields::{InvalidFields, parse_uuid},
    page::Page,
};

use super::{Service, decode, encode};
use crate::{
    domain::state::InvitationState,
    error::Error,
    use_cases::{
        invitations::{self, InvitationOptions},
        organizations,
    },
};

impl Service {
    /// The faults of a request together with that of its return URL, which is judged by the organization's origins.
    pub(super) async fn with_return_url(
        &self,
        call: &Call,
        mut faults: InvalidFields,
        return_url: String,
    ) -> Status {
        if return_url.is_empty() {
            return faults.into();
        }
        let options = InvitationOptions {
            return_url: Some(return_url),
            ..Default::default()
        };
        let checked = self
            .context
            .store
            .read(call, async |tx| {
                let organization = organizations::read(tx, call.organization_id).await?;
                options.check(&self.context, &organization)
            })
            .await;
        match checked {
            Err(Error::Invalid(InvalidFields(more))) => {
                faults.0.extend(more);
                faults.into()
            }
            // Whatever else is wrong is told once these faults are mended.
            _ => faults.into(),
        }
    }
}

#[tonic::async_trait]
impl InvitationService for Service {
    async fn send_invitation(
        &self,
        request: Request<SendInvitationRequest>,
    ) -> Result<Response<SendInvitationResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let account_id = match &request.target {
            Some(Target::AccountId(id)) => fields.take("account_id", parse_uuid(id)),
            Some(Target::GroupId(_)) => {
                fields.refuse_unserved("group_id");
                None
            }
            None => {
                fields.refuse("account_id", "required: a UUID");
                None
            }
        };
        let return_url = request.return_url.clone().unwrap_or_default();
        let options = decode::invitation_options(&mut fields, request.form_id, request.return_url);
        let (account_id, options) = match fields.finish((account_id, options)) {
            Ok(parsed) => parsed,
            Err(faults) => return Err(self.with_return_url(&call, faults, return_url).await),
        };
        self.context
            .store
            .change(&call, async |change| {
                let outcome =
                    invitations::send(&self.context, change, account_id, &options).await?;
                Ok(SendInvitationResponse {
                    results: vec![SendInvitationResult {
                        account_id: account_id.to_string(),
                        outcome: Some(Outcome::Invitation(encode::invitation(outcome.invitation))),
                        already_waiting: outcome.already_waiting,
                    }],
                })
            })
            .await
    }

    async fn get_invitation(
        &self,
        request: Request<GetInvitationRequest>,
    ) -> Result<Response<GetInvitationResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let invitation_id = fields.take("invitation_id", parse_uuid(&request.invitation_id));
        let (invitation_id,) = fields.finish((invitation_id,))?;
        let invitation = self
            .context
            .store
            .read(&call, async |tx| {
                invitations::read(tx, call.organization_id, invitation_id).await
            })
            .await?;
        Ok(Response::new(GetInvitationResponse {
            invitation: Some(encode::invitation(invitation)),
        }))
    }

    async fn list_invitations(
        &self,
        request: Request<ListInvitationsRequest>,
    ) -> Result<Response<ListInvitationsResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let page = Page::parse(&request);
        let account_id = (!request.account_id.is_empty())
            .then(|| fields.take("account_id", parse_uuid(&request.account_id)))
            .flatten();
        let states = fields.set("states", request.states, 50, InvitationState::filter);
        let (states,) = fields.finish((states,))?;
        let page = page?;
        let rows = self
            .context
            .store
            .read(&call, async |tx| {
                invitations::list(tx, call.organization_id, account_id, &states, &page).await
            })
            .await?;
        let (invitations, next_page_token) = page.cut(
            rows,
            |invitation| invitation.invitation_id,
            encode::invitation,
        );
        Ok(Response::new(ListInvitationsResponse {
            invitations,
            next_page_token,
        }))
    }

    async fn revoke_invitation(
        &self,
        request: Request<RevokeInvitationRequest>,
    ) -> Result<Response<RevokeInvitationResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let invitation_id = fields.take("invitation_id", parse_uuid(&request.invitation_id));
        let (invitation_id,) = fields.finish((invitation_id,))?;
        self.context
            .store
            .change(&call, async |change| {
                let invitation = invitations::revoke(change, invitation_id).await?;
                Ok(RevokeInvitationResponse {
                    invitation: Some(encode::invitation(invitation)),
                })
            })
            .await
    }
}
