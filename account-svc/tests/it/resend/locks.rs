//! The order of locks: account, then invitations by their keys. Whoever keeps it cannot deadlock.

use account_svc::{
    db::invitation::record_deliveries, domain::state::InvitationState as EmailState,
};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use usher_proto::account::v1::{Invitation, InvitationState};
use usher_runtime::database::{self, Scope};

use super::{ann, requests::make_older};
use crate::support::{Service, send_invitation, stored_report, until};

impl Service {
    /// Waits until somebody waits for a lock.
    async fn somebody_waits(&self) {
        let mut admin = self.admin().await;
        until("somebody waits for a lock", async || {
            sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_stat_activity
                    WHERE datname = current_database() AND wait_event_type = 'Lock')",
            )
            .fetch_one(&mut admin)
            .await
            .unwrap()
        })
        .await;
    }
}

async fn lock(connection: &mut PgConnection, table: &str, key: &str, id: &str, mode: &str) -> i64 {
    let statement = format!(
        "SELECT count(*) FROM (SELECT FROM {table} WHERE {key} = '{id}' FOR UPDATE {mode}) AS locked"
    );
    sqlx::query_scalar(AssertSqlSafe(statement))
        .fetch_one(connection)
        .await
        .unwrap()
}

async fn is_free(service: &Service, invitation: &Invitation) -> bool {
    let mut admin = service.admin().await;
    let id = &invitation.invitation_id;
    lock(
        &mut admin,
        "invitations",
        "invitation_id",
        id,
        "SKIP LOCKED",
    )
    .await
        == 1
}

#[tokio::test]
async fn a_report_that_supersedes_waits_for_the_account_and_holds_nothing() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let (first, second) = (resent.first.0, resent.second.0);
    let mut admin = service.admin().await;
    let mut holder = admin.begin().await.unwrap();
    let account_id = &resent.account.account_id;
    lock(&mut holder, "accounts", "account_id", account_id, "").await;
    let reports = [
        stored_report(&first, EmailState::Delivered, 9),
        stored_report(&second, EmailState::Sent, 9),
    ];
    let record = async {
        let mut tx = database::begin(&service.pool, Scope::Platform).await?;
        let recorded = record_deliveries(&mut tx, &reports).await?;
        tx.commit().await?;
        Ok::<_, sqlx::Error>(recorded.superseded.len())
    };
    let release = async {
        service.somebody_waits().await;
        assert!(is_free(&service, &first).await && is_free(&service, &second).await);
        holder.commit().await.unwrap();
    };
    let (superseded, ()) = tokio::join!(record, release);
    assert_eq!(superseded.unwrap(), 1);
    assert_eq!(
        service.states_of(&resent.account).await,
        [InvitationState::Sent, InvitationState::Superseded]
    );
}

#[tokio::test]
async fn the_invitations_of_an_account_are_locked_from_the_oldest_on() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let resent = service.resent(ann(&organization)).await;
    let (first, second) = (resent.first.0, resent.second.0);
    let mut admin = service.admin().await;
    let mut holder = admin.begin().await.unwrap();
    let id = &first.invitation_id;
    lock(&mut holder, "invitations", "invitation_id", id, "").await;
    let release = async {
        service.somebody_waits().await;
        assert!(is_free(&service, &second).await);
        holder.commit().await.unwrap();
    };
    let revoke = service.revoke(&second);
    let (revoked, ()) = tokio::join!(revoke, release);
    assert_eq!(revoked.unwrap().state(), InvitationState::Revoked);
}

/// Two clicks at once: the second waits for the first, and finds its email waiting.
#[tokio::test]
async fn a_request_waits_for_the_one_before() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let account = service.create(ann(&organization)).await;
    service
        .sent(account.last_invitation.as_ref().unwrap())
        .await;
    let mut admin = service.admin().await;
    let mut holder = admin.begin().await.unwrap();
    // Both have begun before one of them goes on.
    lock(
        &mut holder,
        "accounts",
        "account_id",
        &account.account_id,
        "",
    )
    .await;
    let click = || service.send(send_invitation(&account));
    let release = async {
        let mut watcher = service.admin().await;
        until("both wait for the account", async || {
            let waiting: i64 = sqlx::query_scalar(
                "SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            .fetch_one(&mut watcher)
            .await
            .unwrap();
            waiting == 2
        })
        .await;
        holder.commit().await.unwrap();
    };
    let (one, two, ()) = tokio::join!(click(), click(), release);
    assert_ne!(one.1, two.1);
    assert_eq!(one.0.invitation_id, two.0.invitation_id);
}

/// An email is about to be given up, and its first report arrives: what is answered is what the report says.
#[tokio::test]
async fn a_request_finds_what_a_report_said_a_moment_ago() {
    for (state, waits) in [(EmailState::Throttled, true), (EmailState::Sent, false)] {
        let mut service = Service::start().await;
        let organization = service.organization().await;
        let account = service.create(ann(&organization)).await;
        let first = account.last_invitation.clone().unwrap();
        make_older(&service, &first, "11 minutes").await;
        let mut tx = database::begin(&service.pool, Scope::Platform)
            .await
            .unwrap();
        let reports = [stored_report(&first, state, 1)];
        record_deliveries(&mut tx, &reports).await.unwrap();
        let release = async {
            service.somebody_waits().await;
            tx.commit().await.unwrap();
        };
        let send = service.send(send_invitation(&account));
        let ((invitation, already_waiting), ()) = tokio::join!(send, release);
        assert_eq!(already_waiting, waits);
        assert_eq!(invitation.invitation_id == first.invitation_id, waits);
        let shown = InvitationState::from(if waits { state } else { EmailState::Queued });
        assert_eq!(invitation.state(), shown);
    }
}
