//! A model of the invitations of one account, and what can happen to them.

use std::fmt;

use account_svc::{db::invitation::DeliveryReport, domain::state::InvitationState as EmailState};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_oneof,
};
use usher_proto::account::v1::{Account, AccountState, InvitationState, TokenStatus};

/// What is done to the account. Numbers choose one of the invitations, or of the reports, that there are.
#[derive(Debug, Clone)]
pub enum Step {
    Send,
    Revoke(usize),
    Activate(usize),
    /// notify-svc brings an email further; the report may arrive at once.
    Mail(usize, Progress, bool),
    /// Reports arrive in one batch, each as often as it is named.
    Report(Vec<usize>),
    CorrectEmail,
    ChangeCapitals,
    Close,
    Reopen,
    /// The clock passes the end of an invitation, and of every older one.
    Expire(usize),
    /// An email of which nothing was heard until then is given up when another is asked for.
    TenMinutesPass,
}

#[derive(Debug, Clone, Copy)]
pub enum Progress {
    TakeIn,
    Throttle,
    Send,
    Deliver,
    Bounce,
    Fail,
}

pub fn step() -> impl Strategy<Value = Step> {
    let progress = prop_oneof![
        2 => Just(Progress::TakeIn),
        1 => Just(Progress::Throttle),
        6 => Just(Progress::Send),
        2 => Just(Progress::Deliver),
        1 => Just(Progress::Bounce),
        1 => Just(Progress::Fail),
    ];
    prop_oneof![
        8 => Just(Step::Send),
        1 => any::<usize>().prop_map(Step::Revoke),
        1 => any::<usize>().prop_map(Step::Activate),
        16 => (any::<usize>(), progress, any::<bool>())
            .prop_map(|(which, progress, is_reported)| Step::Mail(which, progress, is_reported)),
        10 => vec(any::<usize>(), 1..4).prop_map(Step::Report),
        1 => Just(Step::CorrectEmail),
        1 => Just(Step::ChangeCapitals),
        1 => Just(Step::Close),
        1 => Just(Step::Reopen),
        1 => any::<usize>().prop_map(Step::Expire),
        3 => Just(Step::TenMinutesPass),
    ]
}

/// An invitation as it should be.
pub struct Modelled {
    pub invitation_id: String,
    pub token: String,
    /// What notify-svc knows of its email, and the number of its last report.
    pub mail: (EmailState, i64),
    /// What account-svc was told, or takes for granted.
    pub shown: (EmailState, i64),
    /// Ten minutes have passed since it was made.
    pub is_old: bool,
    /// Another took its place, because nothing was heard of its email.
    pub is_given_up: bool,
    pub is_expired: bool,
    pub end: Option<InvitationState>,
}

impl Modelled {
    pub fn is_open(&self) -> bool {
        self.end.is_none() && !self.is_expired
    }

    pub fn state(&self) -> InvitationState {
        match self.end {
            Some(end) => end,
            None if self.is_expired => InvitationState::Expired,
            None => self.shown.0.into(),
        }
    }

    pub fn waits(&self) -> bool {
        self.is_open() && self.shown.0.is_waiting()
    }

    /// A report arrives.
    pub fn told(&mut self, report: &DeliveryReport) {
        let is_late = self.is_given_up && report.state.is_waiting();
        if report.revision > self.shown.1 && !is_late {
            self.shown = (report.state, report.revision);
        }
    }

    /// Another email is asked for. Nothing is said any more of one of which nothing was heard for long.
    pub fn give_up(&mut self) {
        if self.waits() && self.is_old && self.shown.1 == 0 {
            self.shown.0 = EmailState::Failed;
            self.is_given_up = true;
        }
    }

    pub fn end(&mut self, how: InvitationState) {
        if self.end.is_none() {
            let expires = self.is_expired && how != InvitationState::Accepted;
            self.end = Some(if expires {
                InvitationState::Expired
            } else {
                how
            });
        }
    }

    pub fn status(&self, is_active: bool) -> TokenStatus {
        match self.end {
            Some(InvitationState::Accepted) => TokenStatus::Used,
            Some(InvitationState::Revoked) => TokenStatus::Revoked,
            Some(InvitationState::Superseded) if is_active => TokenStatus::Used,
            Some(InvitationState::Superseded) => TokenStatus::Superseded,
            _ if self.is_expired => TokenStatus::Expired,
            _ => TokenStatus::Valid,
        }
    }
}

/// The account as it should be, oldest invitation first.
pub struct Model {
    pub account: Account,
    pub invitations: Vec<Modelled>,
    pub reports: Vec<DeliveryReport>,
    pub is_active: bool,
    pub is_closed: bool,
    pub emails: usize,
}

impl Model {
    pub fn state(&self) -> AccountState {
        if self.is_closed {
            AccountState::Closed
        } else if self.is_active {
            AccountState::Active
        } else if self.invitations.iter().any(Modelled::is_open) {
            AccountState::Invited
        } else {
            AccountState::NotInvited
        }
    }

    pub fn end_all(&mut self, how: InvitationState) {
        for invitation in &mut self.invitations {
            invitation.end(how);
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.invitations {
            write!(
                f,
                "{:?} (email {:?}, told {:?}); ",
                one.state(),
                one.mail,
                one.shown
            )?;
        }
        write!(f, "account {:?}", self.state())
    }
}
