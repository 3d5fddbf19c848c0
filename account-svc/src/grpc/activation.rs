//! `usher.account.v1.ActivationService`.

use prost::Message as _;
use secrecy::SecretString;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    ActivateAccountRequest, ActivateAccountResponse, AuthenticateRequest, AuthenticateResponse,
    Brand, InspectTokenRequest, InspectTokenResponse, OrganizationProfile, PasswordPolicy,
    TokenPurpose, TokenStatus, activation_service_server::ActivationService,
};
use usher_runtime::fields::{FieldParser, parse_uuid};

use super::{Service, decode};
use crate::{
    activation, authentication,
    domain::{
        email::{Email, masked},
        password, text, token,
    },
    error::Error,
    events::timestamp,
};

#[tonic::async_trait]
impl ActivationService for Service {
    async fn inspect_token(
        &self,
        request: Request<InspectTokenRequest>,
    ) -> Result<Response<InspectTokenResponse>, Status> {
        let request = request.into_inner();
        let hash = token::parse(&request.token).ok_or(Error::TokenUnknown)?;
        let inspection = activation::inspect(&self.context, hash).await?;
        let token = inspection.token;
        let purpose = match token.kind.as_str() {
            "SHARE_REQUEST" => TokenPurpose::ShareRequest,
            _ => TokenPurpose::Activation,
        };
        Ok(Response::new(InspectTokenResponse {
            purpose: purpose.into(),
            status: TokenStatus::from_str_name(&format!("TOKEN_STATUS_{}", token.status))
                .unwrap_or_default()
                .into(),
            organization: Some(OrganizationProfile {
                organization_id: token.organization_id.to_string(),
                display_name: token.organization_name,
                brand: Some(Brand {
                    logo_url: token.logo_url,
                    color: token.color,
                }),
            }),
            masked_email: masked(&token.recipient),
            expire_time: Some(timestamp(token.expire_time)),
            password_policy: Some(self.password_policy()),
            return_url: token.return_url,
            form_id: token.form_id,
            locale: token.locale,
            has_login: inspection.has_login,
        }))
    }

    async fn activate_account(
        &self,
        request: Request<ActivateAccountRequest>,
    ) -> Result<Response<ActivateAccountResponse>, Status> {
        let mut request = request.into_inner();
        let password = SecretString::from(std::mem::take(&mut request.password));
        let mut parser = FieldParser::default();
        let key = decode::request_key(
            &mut parser,
            &request.request_id,
            "ActivateAccount",
            &request.encode_to_vec(),
        );
        parser.finish(()).map_err(Error::from)?;
        let hash = token::parse(&request.token).ok_or(Error::TokenUnknown)?;
        let activation = activation::activate(&self.context, hash, password, key.as_ref()).await?;
        Ok(Response::new(ActivateAccountResponse {
            organization_id: activation.organization_id.to_string(),
            account_id: activation.account_id.to_string(),
            person_id: activation.person_id.to_string(),
            return_url: activation.return_url,
        }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let request = request.into_inner();
        let password = SecretString::from(request.password);
        let mut parser = FieldParser::default();
        let organization_id = parser.take("organization_id", parse_uuid(&request.organization_id));
        let email = parser.take("email", Email::parse(&request.email));
        let source = parser.take("source", text::optional(&request.source, 128));
        let (organization_id, email, source) = parser
            .finish((organization_id, email, source))
            .map_err(Error::from)?;
        let login = authentication::authenticate(
            &self.context,
            organization_id,
            email.canonical(),
            password,
            &source,
        )
        .await?;
        Ok(Response::new(AuthenticateResponse {
            person_id: login.person_id.to_string(),
            account_id: login
                .account_id
                .map(|id| id.to_string())
                .unwrap_or_default(),
            previous_login_time: login.previous_login_time.map(timestamp),
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
