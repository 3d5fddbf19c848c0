//! Inviting again.

mod links;
mod locks;
mod model;
mod property;
mod requests;

use usher_proto::account::v1::{
    Account, CreateAccountRequest, Invitation, InvitationState, TokenStatus,
};

use crate::support::{Link, Service, new_account};

/// An account with a link in the client's hands and a newer one whose email waits.
struct Resent {
    account: Account,
    first: (Invitation, Link),
    second: (Invitation, Link),
}

impl Service {
    async fn resent(&mut self, request: CreateAccountRequest) -> Resent {
        let account = self.create(request).await;
        let link = self.next_link().await;
        let invitation = account.last_invitation.clone().unwrap();
        let first = (self.sent(&invitation).await, link);
        let second = self.invite(&account).await;
        let second = (second, self.next_link().await);
        Resent {
            account,
            first,
            second,
        }
    }

    async fn status(&self, link: &Link) -> TokenStatus {
        self.inspect(&link.token).await.unwrap().status()
    }

    async fn states_of(&self, account: &Account) -> Vec<InvitationState> {
        let invitations = self.invitations_of(account).await;
        invitations.iter().map(Invitation::state).collect()
    }
}

fn ann(organization_id: &str) -> CreateAccountRequest {
    new_account(organization_id, "Ann", "Lee", "ann@example.org")
}
