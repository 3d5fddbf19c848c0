//! What becomes of an email after an attempt, or instead of one.

use std::time::Duration;

use usher_runtime::backoff::jittered;

use super::{SenderSettings, UnknownPolicy, circuit_breaker::CircuitBreaker, write::Fault};
use crate::{
    db::delivery::{Attempt, Claim, ClaimStatus, Next, Outcome, PutBack},
    domain::{DeliveryState, Reply, Verdict, classify},
    mail::SendError,
    metrics::Metrics,
};

/// Longest delay of an email that cannot be written: so long after the installation was mended the last one is sent.
const LONGEST_UNWRITABLE: Duration = Duration::from_mins(5);

/// How often an email is sent again whose process died: most of those that it had marked were not begun.
const DEATHS: i32 = 5;

/// What judges.
#[derive(Clone)]
pub(super) struct Judge {
    pub settings: SenderSettings,
    pub metrics: Metrics,
    pub relay: CircuitBreaker,
}

impl Judge {
    /// An email that is not sent, and why; `None` if it can be sent.
    pub(super) fn stopped(&self, claim: &Claim) -> Option<Outcome> {
        Some(match claim.status {
            ClaimStatus::Sendable => return None,
            ClaimStatus::HandedOver => self.lost(claim, DEATHS),
            ClaimStatus::Revoked if claim.unknown_count > 0 => Outcome::ended(
                DeliveryState::Failed,
                "the relay's answer was lost, and the invitation was revoked or replaced by a newer one before \
                 another attempt",
            ),
            ClaimStatus::Revoked => Outcome::ended(
                DeliveryState::Cancelled,
                "the invitation was revoked or replaced by a newer one",
            ),
            ClaimStatus::Suppressed => Outcome::ended(
                DeliveryState::Suppressed,
                "the recipient is on the suppression list",
            ),
            ClaimStatus::Expired => Outcome::ended(
                DeliveryState::Failed,
                "the link expired before the email could be sent",
            ),
        })
    }

    /// An email that could not be written.
    pub(super) fn not_written(&self, claim: &Claim, fault: Fault) -> Outcome {
        let reason = match fault {
            Fault::Parked(reason) => return Outcome::ended(DeliveryState::Failed, reason),
            Fault::Unwritable(reason) => reason,
        };
        self.metrics.put_back("unwritable");
        let longest = LONGEST_UNWRITABLE.min(self.settings.retry_max);
        let delay = self.delay(claim.entry.put_back_count, longest);
        let is_first = claim.entry.put_back_count == 0;
        if is_first {
            tracing::error!(delivery.id = %claim.delivery_id, reason, "an email waits until this is mended");
        }
        Outcome {
            reason: Some(reason),
            // Told once.
            publish: is_first,
            put_back: Some(PutBack::Unwritable),
            ..Outcome::put_back(Next::After(delay))
        }
    }

    /// An email whose lease could end while it is sent.
    pub(super) fn too_late(&self) -> Outcome {
        self.metrics.put_back("late");
        Outcome::put_back(Next::After(Duration::ZERO))
    }

    /// What the relay made of an email.
    pub(super) fn answered(&self, claim: &Claim, result: Result<Reply, SendError>) -> Outcome {
        match result {
            Ok(reply) => {
                self.relay.accepted(claim.claim_time);
                Outcome {
                    smtp_status: Some(reply.to_string()),
                    attempt: Attempt::MayHaveArrived,
                    reason: None,
                    ..Outcome::ended(DeliveryState::Sent, "")
                }
            }
            Err(SendError::Refused { stage, reply }) => match classify(stage, &reply) {
                Verdict::RelayTrouble => self.relay_failed(&SendError::Refused { stage, reply }),
                verdict => self.refused(claim, verdict, &reply),
            },
            Err(SendError::AnswerLost) => self.answer_lost(claim),
            Err(SendError::Interrupted | SendError::Stale) => self.interrupted(claim),
            Err(SendError::NeedsSmtpUtf8) => Outcome::ended(
                DeliveryState::Failed,
                "the relay does not take addresses outside ASCII (SMTPUTF8)",
            ),
            Err(error @ SendError::Relay(_)) => self.relay_failed(&error),
        }
    }

    /// The relay went away before it had the whole of the email: no attempt. If it does so with several emails, it is the
    /// relay's fault, and otherwise this email may have something to do with it.
    fn interrupted(&self, claim: &Claim) -> Outcome {
        self.metrics.put_back("interrupted");
        if let Ok(mail) = &claim.mail {
            self.relay
                .did_not_take(&mail.recipient, "it goes away while emails are handed over");
        }
        let delay = self.delay(claim.entry.put_back_count, self.settings.retry_max);
        Outcome {
            reason: Some(
                "the relay went away before it had the whole of the email; it is tried again",
            ),
            // Told once.
            publish: claim.entry.put_back_count == 0,
            put_back: Some(PutBack::Interrupted),
            ..Outcome::put_back(Next::After(delay))
        }
    }

    /// The relay cannot be used: all emails wait.
    fn relay_failed(&self, error: &SendError) -> Outcome {
        self.metrics.put_back("relay");
        Outcome::put_back(Next::After(self.relay.failed(&error.to_string())))
    }

    fn refused(&self, claim: &Claim, verdict: Verdict, reply: &Reply) -> Outcome {
        let ended = |reason| Outcome {
            attempt: Attempt::Refused,
            smtp_status: Some(reply.to_string()),
            ..Outcome::ended(DeliveryState::Failed, reason)
        };
        match verdict {
            Verdict::Fail | Verdict::RelayTrouble => {
                self.relay.works();
                ended("the relay refused the email")
            }
            Verdict::DeadMailbox => {
                self.relay.works();
                Outcome {
                    suppress: true,
                    ..ended("the mailbox does not exist")
                }
            }
            Verdict::Policy => self.refused_by_policy(
                claim,
                ended("the relay refused the email for a reason of policy"),
            ),
            Verdict::Retry => {
                self.relay.works();
                self.again(
                    claim,
                    ended("the relay refused the email for now; it is tried again"),
                )
            }
        }
    }

    /// The relay refused an email for a reason of policy: of the email, or because the relay may not be used at all.
    fn refused_by_policy(&self, claim: &Claim, refused: Outcome) -> Outcome {
        if let Ok(mail) = &claim.mail {
            let status = refused.smtp_status.as_deref().unwrap_or_default();
            self.relay.did_not_take(&mail.recipient, status);
        }
        let takes_others = |time| self.relay.has_accepted_since(time);
        // However often: a relay that takes nothing says nothing of this email.
        if claim.entry.refuse_time.is_some_and(takes_others) {
            return refused;
        }
        self.metrics.put_back("policy");
        Outcome {
            put_back: Some(PutBack::Policy),
            ..self.again(claim, refused)
        }
    }

    /// The outcome of an attempt after which there is another one, unless the link expires before.
    fn again(&self, claim: &Claim, outcome: Outcome) -> Outcome {
        let delay = self.delay(claim.attempt_count, self.settings.retry_max);
        if claim.claim_time + delay >= claim.expire_time {
            return Outcome {
                reason: Some("the relay refused the email for so long that its link expires"),
                ..outcome
            };
        }
        Outcome {
            state: DeliveryState::Queued,
            next: Some(Next::After(delay)),
            ..outcome
        }
    }

    /// Doubles with each time.
    fn delay(&self, times_before: i32, longest: Duration) -> Duration {
        let doublings = u32::try_from(times_before).unwrap_or(0).min(20);
        let delay = self.settings.retry_base.saturating_mul(1 << doublings);
        jittered(delay.min(longest))
    }

    /// The relay's answer was lost: nobody knows whether the email has arrived.
    pub(super) fn answer_lost(&self, claim: &Claim) -> Outcome {
        self.lost(claim, 1)
    }

    /// Nobody knows whether the email has arrived. It is sent again `times` at most.
    fn lost(&self, claim: &Claim, times: i32) -> Outcome {
        let resend =
            self.settings.unknown_policy == UnknownPolicy::Resend && claim.unknown_count < times;
        let mut outcome = Outcome::ended(
            DeliveryState::Failed,
            "the relay's answer was lost; the email may have arrived, and is not sent again",
        );
        outcome.attempt = Attempt::MayHaveArrived;
        if resend {
            outcome.state = DeliveryState::Unknown;
            outcome.next = Some(Next::After(jittered(self.settings.unknown_delay)));
            outcome.reason = Some(
                "the relay's answer was lost; the email may have arrived, and is sent once more",
            );
        }
        outcome
    }
}
