//! States and kinds, each with its name in the database and in the contract.

use usher_proto::account::v1 as proto;

/// Declares an enum whose values are stored as text, under the names of the contract without their prefix.
macro_rules! stored_enum {
    (
        $(#[$doc:meta])*
        $name:ident of $contract:ty { $($(#[$value_doc:meta])* $value:ident = $text:literal,)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
        #[sqlx(type_name = "text")]
        pub enum $name {
            $($(#[$value_doc])* #[sqlx(rename = $text)] $value,)+
        }

        impl $name {
            /// Its name in the database: the contract's name without the prefix.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text,)+ }
            }

            /// The value of a filter, from its number in the contract.
            ///
            /// # Errors
            /// Says what is accepted.
            pub fn filter(number: i32) -> Result<Self, String> {
                match <$contract>::try_from(number) {
                    $(Ok(<$contract>::$value) => Ok(Self::$value),)+
                    _ => Err(format!(
                        "{number} is no value to filter by; accepted: {}",
                        [$($text),+].join(", ")
                    )),
                }
            }
        }

        impl From<$name> for $contract {
            fn from(value: $name) -> Self {
                match value { $($name::$value => Self::$value,)+ }
            }
        }
    };
}

stored_enum! {
    /// State of an account, derived from facts by the SQL function `account_state`.
    AccountState of proto::AccountState {
        /// No email: nobody can log in.
        Managed = "MANAGED",
        /// An email, and no open invitation.
        NotInvited = "NOT_INVITED",
        /// An open invitation.
        Invited = "INVITED",
        /// An open request to a Person to share.
        ShareRequested = "SHARE_REQUESTED",
        /// The Person declined to share.
        ShareDeclined = "SHARE_DECLINED",
        /// Linked to a Person.
        Active = "ACTIVE",
        /// Closed by staff.
        Closed = "CLOSED",
    }
}

stored_enum! {
    /// State of an invitation, derived from facts by the SQL function `invitation_state`.
    InvitationState of proto::InvitationState {
        /// Waits to be sent.
        Queued = "QUEUED",
        /// Waits for a limit of its recipient.
        Throttled = "THROTTLED",
        /// Accepted by the mail relay.
        Sent = "SENT",
        /// Reported as delivered to the mailbox.
        Delivered = "DELIVERED",
        /// Reported as undeliverable.
        Bounced = "BOUNCED",
        /// Refused by the mail relay, or not sent in time.
        Failed = "FAILED",
        /// Not sent: the recipient is on the suppression list.
        Suppressed = "SUPPRESSED",
        /// The client took the account over.
        Accepted = "ACCEPTED",
        /// The Person declined to share.
        Declined = "DECLINED",
        /// Its time is over.
        Expired = "EXPIRED",
        /// Withdrawn.
        Revoked = "REVOKED",
        /// A newer one took its place.
        Superseded = "SUPERSEDED",
    }
}

stored_enum! {
    /// What an invitation asks of its recipient.
    InvitationKind of proto::InvitationKind {
        /// Take the account over.
        Activation = "ACTIVATION",
        /// Share the information of an existing Person.
        ShareRequest = "SHARE_REQUEST",
    }
}

stored_enum! {
    /// Whether a token can still be used.
    TokenStatus of proto::TokenStatus {
        /// It can be used.
        Valid = "VALID",
        /// Its time is over.
        Expired = "EXPIRED",
        /// It was used, or another link of the account was.
        Used = "USED",
        /// The organization withdrew it.
        Revoked = "REVOKED",
        /// A newer email holds the link that works.
        Superseded = "SUPERSEDED",
    }
}

/// How far an invitation has come.
enum Path {
    /// Its email is still to be sent.
    Waiting,
    /// The mail relay accepted its email.
    Left,
    /// Its email was not sent and will not be.
    NotSent,
    /// It has ended, whatever happens to its email.
    Ended,
}

impl InvitationState {
    /// Whether its email is still to be sent.
    #[must_use]
    pub const fn is_waiting(self) -> bool {
        matches!(self.path(), Path::Waiting)
    }

    /// Whether its email is known to have left.
    #[must_use]
    pub const fn has_left(self) -> bool {
        matches!(self.path(), Path::Left)
    }

    /// Whether the recipient did not get its email, for a reason that staff are shown.
    #[must_use]
    pub const fn has_failed(self) -> bool {
        matches!(self, Self::Bounced) || matches!(self.path(), Path::NotSent)
    }

    /// Whether the invitation has ended: nothing that happens to its email changes it.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self.path(), Path::Ended)
    }

    /// The one place that names every state, so that a new one is not forgotten.
    const fn path(self) -> Path {
        match self {
            Self::Queued | Self::Throttled => Path::Waiting,
            Self::Sent | Self::Delivered | Self::Bounced => Path::Left,
            Self::Failed | Self::Suppressed => Path::NotSent,
            Self::Accepted | Self::Declined | Self::Expired | Self::Revoked | Self::Superseded => {
                Path::Ended
            }
        }
    }
}
