//! Accounts: read together with their newest invitation, searched for duplicates, and written.

mod duplicates;
mod renew_keys;
mod write;

use std::collections::BTreeMap;

use sqlx::{PgConnection, types::Json};
use time::{Date, OffsetDateTime};
use usher_runtime::page::Rows;
use uuid::Uuid;

pub use self::{
    duplicates::{CheckData, EmailUse, find_by_email, find_candidates, find_email, name_locks},
    renew_keys::renew_keys,
    write::{Login, NewAccount, activate, close, create, record_login, reopen, update},
};
use super::{MAX_SCANNED, invitation::Invitation};
use crate::domain::{
    email::Email,
    name::PersonName,
    profile::{Address, Contact, Member, Profile},
    state::{AccountState, InvitationKind, InvitationState},
};

/// An account as it is read.
#[derive(Debug, Clone)]
pub struct Account {
    /// Identity.
    pub account_id: Uuid,
    /// The organization it belongs to.
    pub organization_id: Uuid,
    /// Its state, derived from facts.
    pub state: AccountState,
    /// The Person who took it over; `None` if nobody did.
    pub person_id: Option<Uuid>,
    /// What staff entered.
    pub profile: Profile,
    /// Counts the changes.
    pub version: i64,
    /// When it was created.
    pub create_time: OffsetDateTime,
    /// When it was last changed.
    pub update_time: OffsetDateTime,
    /// The newest invitation.
    pub last_invitation: Option<Invitation>,
    /// Last login of the client through this organization.
    pub last_login_time: Option<OffsetDateTime>,
}

impl Account {
    /// An account that was created a moment ago. Its state is the one that the SQL function `account_state` gives it,
    /// derived here again, so that a create need not read it back.
    #[must_use]
    pub fn created(
        organization_id: Uuid,
        account_id: Uuid,
        profile: &Profile,
        create_time: OffsetDateTime,
        invitation: Option<Invitation>,
    ) -> Self {
        let state = match &invitation {
            _ if profile.email.is_none() => AccountState::Managed,
            None => AccountState::NotInvited,
            Some(invitation) => match invitation.kind {
                InvitationKind::Activation => AccountState::Invited,
                InvitationKind::ShareRequest => AccountState::ShareRequested,
            },
        };
        Self {
            account_id,
            organization_id,
            state,
            person_id: None,
            profile: profile.clone(),
            version: 1,
            create_time,
            update_time: create_time,
            last_invitation: invitation,
            last_login_time: None,
        }
    }
}

struct Row {
    account_id: Uuid,
    organization_id: Uuid,
    state: AccountState,
    person_id: Option<Uuid>,
    given_name: String,
    family_name: String,
    email: Option<String>,
    birth_date: Option<Date>,
    phone: Option<String>,
    members: Json<Vec<Member>>,
    addresses: Json<Vec<Address>>,
    contacts: Json<Vec<Contact>>,
    plan: String,
    assigned_staff: String,
    attributes: Json<BTreeMap<String, String>>,
    locale: String,
    version: i64,
    create_time: OffsetDateTime,
    update_time: OffsetDateTime,
    last_login_time: Option<OffsetDateTime>,
    invitation_id: Option<Uuid>,
    kind: Option<InvitationKind>,
    invitation_state: Option<InvitationState>,
    recipient: Option<String>,
    send_count: Option<i32>,
    requested_by: Option<String>,
    form_id: Option<String>,
    return_url: Option<String>,
    throttled_until: Option<OffsetDateTime>,
    failure_reason: Option<String>,
    invited_time: Option<OffsetDateTime>,
    sent_time: Option<OffsetDateTime>,
    expire_time: Option<OffsetDateTime>,
    end_time: Option<OffsetDateTime>,
}

impl Row {
    fn invitation(&mut self) -> Option<Invitation> {
        Some(Invitation {
            invitation_id: self.invitation_id?,
            organization_id: self.organization_id,
            account_id: self.account_id,
            kind: self.kind?,
            state: self.invitation_state?,
            recipient: self.recipient.take()?,
            send_count: self.send_count?,
            requested_by: self.requested_by.take()?,
            form_id: self.form_id.take()?,
            return_url: self.return_url.take()?,
            throttled_until: self.throttled_until,
            failure_reason: self.failure_reason.take()?,
            create_time: self.invited_time?,
            sent_time: self.sent_time,
            expire_time: self.expire_time?,
            end_time: self.end_time,
        })
    }
}

impl From<Row> for Account {
    fn from(mut row: Row) -> Self {
        Self {
            last_invitation: row.invitation(),
            account_id: row.account_id,
            organization_id: row.organization_id,
            state: row.state,
            person_id: row.person_id,
            profile: Profile {
                name: PersonName {
                    given: row.given_name,
                    family: row.family_name,
                },
                email: row.email.map(Email::stored),
                birth_date: row.birth_date,
                phone: row.phone,
                members: row.members.0,
                addresses: row.addresses.0,
                contacts: row.contacts.0,
                plan: row.plan,
                assigned_staff: row.assigned_staff,
                attributes: row.attributes.0,
                locale: row.locale,
            },
            version: row.version,
            create_time: row.create_time,
            update_time: row.update_time,
            last_login_time: row.last_login_time,
        }
    }
}

/// Reads whole accounts; `$tail` follows the joins.
macro_rules! select_accounts {
    ($tail:literal, $($argument:expr),* $(,)?) => {
        sqlx::query_as!(
            Row,
            r#"SELECT a.account_id, a.organization_id, account_state(a, i) AS "state!: AccountState",
                a.person_id,
                a.given_name, a.family_name, a.email, a.birth_date, a.phone,
                a.members AS "members: Json<Vec<Member>>",
                a.addresses AS "addresses: Json<Vec<Address>>",
                a.contacts AS "contacts: Json<Vec<Contact>>",
                a.plan, a.assigned_staff,
                a.attributes AS "attributes: Json<BTreeMap<String, String>>",
                a.locale, a.version, a.create_time, a.update_time,
                a.last_login_time,
                i.invitation_id AS "invitation_id?", i.kind AS "kind?: InvitationKind",
                invitation_state(i) AS "invitation_state?: InvitationState", i.recipient AS "recipient?",
                i.send_count AS "send_count?", i.requested_by AS "requested_by?",
                i.form_id AS "form_id?", i.return_url AS "return_url?", i.throttled_until AS "throttled_until?",
                i.failure_reason AS "failure_reason?", i.create_time AS "invited_time?",
                i.sent_time AS "sent_time?", i.expire_time AS "expire_time?", i.end_time AS "end_time?"
            FROM accounts a
            LEFT JOIN invitations i
                ON i.organization_id = a.organization_id AND i.invitation_id = a.last_invitation_id
            WHERE a.organization_id = $1 "#
                + $tail,
            $($argument),*
        )
    };
}

/// Reads an account.
///
/// # Errors
/// If the database fails.
pub async fn get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<Option<Account>, sqlx::Error> {
    let row = select_accounts!("AND a.account_id = $2", organization_id, account_id)
        .fetch_optional(connection)
        .await?;
    Ok(row.map(Account::from))
}

/// Reads the accounts that exist of `account_ids`, in no particular order.
///
/// # Errors
/// If the database fails.
pub async fn batch_get(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_ids: &[Uuid],
) -> Result<Vec<Account>, sqlx::Error> {
    let rows = select_accounts!("AND a.account_id = ANY($2)", organization_id, account_ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(Account::from).collect())
}

/// Reads an account and keeps others from changing it until the transaction ends. The lock is taken
/// before the reading, so that what is read is what others left.
///
/// # Errors
/// If the database fails.
pub async fn lock(
    connection: &mut PgConnection,
    organization_id: Uuid,
    account_id: Uuid,
) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query!(
        "SELECT FROM accounts WHERE organization_id = $1 AND account_id = $2 FOR NO KEY UPDATE",
        organization_id,
        account_id,
    )
    .fetch_optional(&mut *connection)
    .await?;
    get(connection, organization_id, account_id).await
}

/// Lists accounts, newest first, after the one that the page before ended with; in any of `states`, or in
/// all if there are none. Looks at up to [`MAX_SCANNED`] of them.
///
/// # Errors
/// If the database fails.
pub async fn list(
    connection: &mut PgConnection,
    organization_id: Uuid,
    states: &[AccountState],
    after: Option<Uuid>,
    limit: i64,
) -> Result<Rows<Account>, sqlx::Error> {
    let after = after.unwrap_or(Uuid::max());
    let states: Vec<String> = states
        .iter()
        .map(|state| state.as_str().to_owned())
        .collect();
    let last = if states.is_empty() {
        None
    } else {
        sqlx::query_scalar!(
            "SELECT account_id FROM accounts
            WHERE organization_id = $1 AND account_id < $2
            ORDER BY account_id DESC OFFSET $3 LIMIT 1",
            organization_id,
            after,
            MAX_SCANNED - 1,
        )
        .fetch_optional(&mut *connection)
        .await?
    };
    let rows = select_accounts!(
        "AND a.account_id < $2 AND a.account_id >= $3
            AND (cardinality($4::text[]) = 0 OR account_state(a, i) = ANY($4))
        ORDER BY a.account_id DESC LIMIT $5",
        organization_id,
        after,
        last.unwrap_or(Uuid::nil()),
        &states,
        limit,
    )
    .fetch_all(connection)
    .await?;
    let rows = rows.into_iter().map(Account::from).collect();
    Ok(Rows {
        rows,
        last_scanned: last,
    })
}
