//! `usher.account.v1.AccountService`.

use prost::Message;
use tonic::{Request, Response, Status};
use usher_proto::account::v1::{
    BatchGetAccountsRequest, BatchGetAccountsResponse, CheckDuplicatesRequest,
    CheckDuplicatesResponse, CloseAccountRequest, CloseAccountResponse, CreateAccountRequest,
    CreateAccountResponse, GetAccountRequest, GetAccountResponse, ListAccountsRequest,
    ListAccountsResponse, ReopenAccountRequest, ReopenAccountResponse, UpdateAccountRequest,
    UpdateAccountResponse, account_service_server::AccountService,
};
use usher_runtime::{
    call::Call,
    change::Change,
    fields::{InvalidFields, parse_uuid},
    page::{self, MAX_RESPONSE_BYTES, Page},
};

use super::{Service, decode, encode};
use crate::{
    domain::{state::AccountState, text},
    error::Error,
    use_cases::{
        accounts, close_account, create_account, duplicates,
        update_account::{self, Update},
    },
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

/// Most accounts of one `BatchGetAccounts`.
const MAX_BATCH: usize = 500;

#[tonic::async_trait]
impl AccountService for Service {
    async fn check_duplicates(
        &self,
        request: Request<CheckDuplicatesRequest>,
    ) -> Result<Response<CheckDuplicatesResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let identity = decode::identity(&mut fields, &request);
        let entry_mode = decode::entry_mode(&mut fields, request.entry_mode);
        let account_id = (!request.account_id.is_empty())
            .then(|| fields.take("account_id", parse_uuid(&request.account_id)))
            .flatten();
        let (identity, entry_mode) = fields.finish((identity, entry_mode))?;
        let report = self
            .context
            .store
            .read(&call, async |tx| {
                duplicates::check(tx, call.organization_id, entry_mode, &identity, account_id).await
            })
            .await?;
        Ok(Response::new(CheckDuplicatesResponse {
            report: Some(encode::report(&report)),
        }))
    }

    async fn create_account(
        &self,
        request: Request<CreateAccountRequest>,
    ) -> Result<Response<CreateAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let return_url = request.return_url.clone();
        let options = decode::invitation_options(
            &mut fields,
            Some(request.form_id),
            Some(request.return_url),
        );
        let decisions = decode::decisions(
            &mut fields,
            request.invite,
            request.on_platform_match,
            &request.duplicate_acknowledgement,
            &request.acknowledgement_reason,
            request.entry_mode,
        );
        let account = request.account.unwrap_or_default();
        let profile = decode::profile_change(&mut fields, account, |_| true).into_profile();
        let (options, mut decisions, profile) = match fields.finish((options, decisions, profile)) {
            Ok(parsed) => parsed,
            Err(faults) => return Err(self.with_return_url(&call, faults, return_url).await),
        };
        decisions.invitation = options;
        self.change_account(&call, true, async |change| {
            let account =
                create_account::create(&self.context, change, &profile, &decisions).await?;
            Ok(CreateAccountResponse {
                account: Some(encode::account(account)),
            })
        })
        .await
    }

    async fn get_account(
        &self,
        request: Request<GetAccountRequest>,
    ) -> Result<Response<GetAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let account_id = fields.take("account_id", parse_uuid(&request.account_id));
        let (account_id,) = fields.finish((account_id,))?;
        let account = self
            .context
            .store
            .read(&call, async |tx| {
                accounts::read(tx, call.organization_id, account_id).await
            })
            .await?;
        Ok(Response::new(GetAccountResponse {
            account: Some(encode::account(account)),
        }))
    }

    async fn batch_get_accounts(
        &self,
        request: Request<BatchGetAccountsRequest>,
    ) -> Result<Response<BatchGetAccountsResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        if request.account_ids.is_empty() {
            fields.refuse("account_ids", format!("required: 1 to {MAX_BATCH} UUIDs"));
        }
        let account_ids = fields.set("account_ids", request.account_ids, MAX_BATCH, |id| {
            parse_uuid(&id).map_err(str::to_owned)
        });
        let (account_ids,) = fields.finish((account_ids,))?;
        let (accounts, missing) = self
            .context
            .store
            .read(&call, async |tx| {
                accounts::batch_get(tx, call.organization_id, &account_ids).await
            })
            .await?;
        let accounts: Vec<_> = accounts.into_iter().map(encode::account).collect();
        let bytes: usize = accounts.iter().map(page::encoded_len).sum();
        if bytes > MAX_RESPONSE_BYTES {
            let description = format!(
                "the accounts are {bytes} bytes together; at most {MAX_RESPONSE_BYTES} are returned at once: \
                 ask for fewer"
            );
            return Err(InvalidFields::one("account_ids", description).into());
        }
        Ok(Response::new(BatchGetAccountsResponse {
            accounts,
            missing_account_ids: missing.iter().map(ToString::to_string).collect(),
        }))
    }

    async fn list_accounts(
        &self,
        request: Request<ListAccountsRequest>,
    ) -> Result<Response<ListAccountsResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let page = Page::parse(&request);
        let filter = request.filter.unwrap_or_default();
        decode::refuse_unserved_filters(&mut fields, &filter);
        let states = fields.set("filter.states", filter.states, 50, AccountState::filter);
        let (states,) = fields.finish((states,))?;
        let page = page?;
        let rows = self
            .context
            .store
            .read(&call, async |tx| {
                accounts::list(tx, call.organization_id, &states, &page).await
            })
            .await?;
        let (accounts, next_page_token) =
            page.cut(rows, |account| account.account_id, encode::account);
        Ok(Response::new(ListAccountsResponse {
            accounts,
            next_page_token,
        }))
    }

    async fn update_account(
        &self,
        request: Request<UpdateAccountRequest>,
    ) -> Result<Response<UpdateAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let account = request.account.unwrap_or_default();
        let account_id = fields.take("account.account_id", parse_uuid(&account.account_id));
        let version = decode::etag(&mut fields, "account.etag", &account.etag);
        let decisions = decode::decisions(
            &mut fields,
            request.invite,
            request.on_platform_match,
            &request.duplicate_acknowledgement,
            &request.acknowledgement_reason,
            request.entry_mode,
        );
        let paths = fields.update_mask(request.update_mask, &PATHS);
        let new = decode::profile_change(&mut fields, account, |field| {
            paths.iter().any(|path| path == field)
        });
        let (account_id, decisions) = fields.finish((account_id, decisions))?;
        let changes_name = new.given_name.is_some() || new.family_name.is_some();
        let update = Update {
            account_id,
            version,
            new,
            fields: paths,
            decisions,
        };
        self.change_account(&call, changes_name, async |change| {
            let account = update_account::update(&self.context, change, update).await?;
            Ok(UpdateAccountResponse {
                account: Some(encode::account(account)),
            })
        })
        .await
    }

    async fn close_account(
        &self,
        request: Request<CloseAccountRequest>,
    ) -> Result<Response<CloseAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let account_id = fields.take("account_id", parse_uuid(&request.account_id));
        let reason = fields.take("reason", text::optional(&request.reason, 500));
        let (account_id, reason) = fields.finish((account_id, reason))?;
        self.change_account(&call, true, async |change| {
            let account = close_account::close(change, account_id, &reason).await?;
            Ok(CloseAccountResponse {
                account: Some(encode::account(account)),
            })
        })
        .await
    }

    async fn reopen_account(
        &self,
        request: Request<ReopenAccountRequest>,
    ) -> Result<Response<ReopenAccountResponse>, Status> {
        let (call, mut fields, request) = Call::open(request)?;
        let account_id = fields.take("account_id", parse_uuid(&request.account_id));
        let (account_id,) = fields.finish((account_id,))?;
        self.change_account(&call, true, async |change| {
            let account = close_account::reopen(change, account_id).await?;
            Ok(ReopenAccountResponse {
                account: Some(encode::account(account)),
            })
        })
        .await
    }
}

impl Service {
    /// Runs a change of an account. After one that can change which names the open accounts of the organization have,
    /// those are counted anew.
    async fn change_account<R: Message + Default>(
        &self,
        call: &Call,
        changes_names: bool,
        work: impl AsyncFnOnce(&mut Change) -> Result<R, Error>,
    ) -> Result<Response<R>, Status> {
        let response = self.context.store.change(call, work).await?;
        if changes_names {
            self.context.changed_names.mark(call.organization_id);
        }
        Ok(response)
    }
}
