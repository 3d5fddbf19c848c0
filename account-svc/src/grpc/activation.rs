//! `usher.account.v1.ActivationService`.

use secrecy::SecretString;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    ActivateAccountRequest, ActivateAccountResponse, AuthenticateRequest, AuthenticateResponse,
    Brand, InspectTokenRequest, InspectTokenResponse, OrganizationProfile, PasswordPolicy,
    TokenPurpose, TokenStatus, activation_service_server::ActivationService,
};
use usher_runtime::{call::Call, database::Scope, email, timestamp};

use super::Service;
use crate::{
    domain::{email::Email, password, state::InvitationKind, text, token},
    error::Error,
    use_cases::{
        activation::{self, Activation},
        authentication,
    },
};

/// Most characters of the place that a login comes from.
const MAX_SOURCE: usize = 128;

#[tonic::async_trait]
impl ActivationService for Service {
    async fn inspect_token(
        &self,
        request: Request<InspectTokenRequest>,
    ) -> Result<Response<InspectTokenResponse>, Status> {
        let (call, fields, request) = Call::open(request)?;
        fields.finish(())?;
        let hash = token::parse(&request.token).ok_or(Error::TokenUnknown)?;
        let inspection = self
            .context
            .store
            .read_in(Scope::Platform, async |tx| {
                activation::inspect(tx, &call, &self.context.rules, hash).await
            })
            .await?;
        let token = inspection.token;
        let purpose = match token.kind {
            InvitationKind::Activation => TokenPurpose::Activation,
            InvitationKind::ShareRequest => TokenPurpose::ShareRequest,
        };
        Ok(Response::new(InspectTokenResponse {
            purpose: purpose.into(),
            status: TokenStatus::from(token.status).into(),
            organization: Some(OrganizationProfile {
                organization_id: token.organization_id.to_string(),
                display_name: token.organization_name,
                brand: Some(Brand {
                    logo_url: token.logo_url,
                    color: token.color,
                }),
            }),
            masked_email: email::masked(&token.recipient),
            expire_time: Some(timestamp::encode(token.expire_time)),
            password_policy: Some(self.password_policy()),
            return_url: inspection.return_url,
            form_id: token.form_id,
            locale: token.locale,
            has_login: inspection.has_login,
        }))
    }

    async fn activate_account(
        &self,
        request: Request<ActivateAccountRequest>,
    ) -> Result<Response<ActivateAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let password = SecretString::from(request.password);
        let source = fields.take("source", text::optional(&request.source, MAX_SOURCE));
        let (source,) = fields.finish((source,))?;
        let activation = Activation {
            hash: token::parse(&request.token).ok_or(Error::TokenUnknown)?,
            password,
            source,
        };
        let response = activation::activate(&self.context, &call, activation).await?;
        Ok(Response::new(response))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let password = SecretString::from(request.password);
        let email = fields.take("email", Email::parse(&request.email));
        let source = fields.take("source", text::optional(&request.source, MAX_SOURCE));
        let (email, source) = fields.finish((email, source))?;
        let login = authentication::authenticate(
            &self.context,
            call.organization_id,
            email.canonical(),
            &source,
            password,
        )
        .await?;
        Ok(Response::new(AuthenticateResponse {
            person_id: login.person_id.to_string(),
            account_id: login
                .account_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            previous_login_time: login.previous_login_time.map(timestamp::encode),
        }))
    }
}

impl Service {
    fn password_policy(&self) -> PasswordPolicy {
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        PasswordPolicy {
            min_length: length(self.context.rules.password.min_length),
            max_length: length(password::MAX_LENGTH),
        }
    }
}
