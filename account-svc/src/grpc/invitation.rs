//! `usher.account.v1.InvitationService`.

use prost::Message as _;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    GetInvitationRequest, GetInvitationResponse, InvitationState, ListInvitationsRequest,
    ListInvitationsResponse, RevokeInvitationRequest, RevokeInvitationResponse,
    SendInvitationRequest, SendInvitationResponse, SendInvitationResult,
    invitation_service_server::InvitationService, send_invitation_request::Target,
    send_invitation_result::Outcome,
};
use usher_runtime::fields::{FieldParser, parse_uuid};

use usher_runtime::page::Page;

use super::{Service, account::extras, decode, encode};
use crate::{error::Error, invitations};

#[tonic::async_trait]
impl InvitationService for Service {
    async fn send_invitation(
        &self,
        request: Request<SendInvitationRequest>,
    ) -> Result<Response<SendInvitationResponse>, Status> {
        let actor = super::subject(&request);
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "SendInvitation",
            &request.encode_to_vec(),
        );
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let account_id = match &request.target {
            Some(Target::AccountId(id)) => parser.take("account_id", parse_uuid(id)),
            Some(Target::GroupId(_)) => {
                return Err(Status::unimplemented(
                    "groups are not served by this version",
                ));
            }
            None => {
                parser.refuse("target", "required: account_id or group_id");
                None
            }
        };
        let extras = extras(&mut parser, &request.form_id, request.return_url);
        let (organization_id, account_id) = parser
            .finish((organization_id, account_id))
            .map_err(Error::from)?;
        let invitation = invitations::send(
            &self.context,
            organization_id,
            account_id,
            &extras,
            &actor,
            key.as_ref(),
        )
        .await?;
        Ok(Response::new(SendInvitationResponse {
            results: vec![SendInvitationResult {
                account_id: account_id.to_string(),
                outcome: Some(Outcome::Invitation(encode::invitation(invitation))),
            }],
        }))
    }

    async fn get_invitation(
        &self,
        request: Request<GetInvitationRequest>,
    ) -> Result<Response<GetInvitationResponse>, Status> {
        let request = request.into_inner();
        let [organization_id, invitation_id] = decode::ids([
            ("organization_id", &request.organization_id),
            ("invitation_id", &request.invitation_id),
        ])?;
        let invitation = invitations::get(&self.context, organization_id, invitation_id).await?;
        Ok(Response::new(GetInvitationResponse {
            invitation: Some(encode::invitation(invitation)),
        }))
    }

    async fn list_invitations(
        &self,
        request: Request<ListInvitationsRequest>,
    ) -> Result<Response<ListInvitationsResponse>, Status> {
        let request = request.into_inner();
        let query = ListInvitationsRequest {
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
        let account_id = (!request.account_id.is_empty())
            .then(|| parser.take("account_id", parse_uuid(&request.account_id)))
            .flatten();
        let states = decode::states(
            &mut parser,
            "states",
            &request.states,
            |state: InvitationState| state.as_str_name(),
            "INVITATION_STATE_",
        );
        let (organization_id,) = parser.finish((organization_id,)).map_err(Error::from)?;
        let listed = invitations::list(
            &self.context,
            organization_id,
            account_id,
            &states,
            page.after,
            page.limit(),
        )
        .await?;
        let (invitations, next_page_token) =
            page.cut(listed, |invitation| invitation.invitation_id);
        Ok(Response::new(ListInvitationsResponse {
            invitations: invitations.into_iter().map(encode::invitation).collect(),
            next_page_token,
        }))
    }

    async fn revoke_invitation(
        &self,
        request: Request<RevokeInvitationRequest>,
    ) -> Result<Response<RevokeInvitationResponse>, Status> {
        let actor = super::subject(&request);
        let request = request.into_inner();
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "RevokeInvitation",
            &request.encode_to_vec(),
        );
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let invitation_id = parser.take("invitation_id", parse_uuid(&request.invitation_id));
        let (organization_id, invitation_id) = parser
            .finish((organization_id, invitation_id))
            .map_err(Error::from)?;
        let invitation = invitations::revoke(
            &self.context,
            organization_id,
            invitation_id,
            &actor,
            key.as_ref(),
        )
        .await?;
        Ok(Response::new(RevokeInvitationResponse {
            invitation: Some(encode::invitation(invitation)),
        }))
    }
}
