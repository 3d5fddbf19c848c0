//! One attempt to send one email: write it, hand it over, judge the answer.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio_util::sync::CancellationToken;
use tracing::Span;
use usher_runtime::{
    backoff::jittered,
    seal::{self, PrivateKey, TokenUse},
};

use super::{
    Sender, SenderSettings, UnknownPolicy,
    circuit_breaker::CircuitBreaker,
    record::{Marker, Recorder},
};
use crate::{
    db::delivery::{Attempt, Claim, ClaimStatus, Mark, Next, Outcome},
    domain::{DeliveryState, Reply, Verdict, classify},
    mail::{Envelope, MailConnection as _, MailTransport, MessageHeaders, OutgoingMail, SendError},
    metrics::Metrics,
    render::{Renderer, Values},
};

/// What all attempts share.
pub(super) struct Attempts<T> {
    transport: T,
    renderer: Arc<Renderer>,
    keys: Arc<[PrivateKey]>,
    envelope: Envelope,
    settings: SenderSettings,
    metrics: Metrics,
    relay: CircuitBreaker,
    marker: Marker,
    recorder: Recorder,
    stop: CancellationToken,
}

impl<T: MailTransport> Attempts<T> {
    pub(super) fn new(
        sender: &Sender<T>,
        relay: CircuitBreaker,
        recorder: Recorder,
        stop: CancellationToken,
    ) -> Self {
        Self {
            transport: sender.transport.clone(),
            renderer: Arc::clone(&sender.renderer),
            keys: Arc::clone(&sender.keys),
            envelope: sender.envelope.clone(),
            settings: sender.settings,
            metrics: sender.metrics.clone(),
            relay,
            marker: Marker::new(sender.pool.clone(), sender.settings.lease),
            recorder,
            stop,
        }
    }

    /// Brings a claimed email one step further and records it.
    pub(super) async fn deliver(&self, claim: Claim) {
        let Some(outcome) = self.attempt(&claim).await else {
            tracing::warn!(
                "not handed over: the lease ran out and another process has the email, or it was cancelled"
            );
            return;
        };
        let span = Span::current();
        if outcome.publish {
            span.record("delivery.state", outcome.state.as_str());
        }
        if let Some(status) = &outcome.smtp_status {
            span.record("smtp.status", status.as_str());
        }
        tracing::info!(
            state = outcome.state.as_str(),
            smtp.status = outcome.smtp_status,
            reason = outcome.reason,
            again = outcome.next.is_some(),
            "delivery attempted"
        );
        self.recorder.record(claim, outcome).await;
    }

    /// `None` if the email is not ours any more.
    async fn attempt(&self, claim: &Claim) -> Option<Outcome> {
        match claim.status {
            ClaimStatus::Sendable => self.send(claim).await,
            ClaimStatus::HandedOver => Some(self.answer_lost(claim)),
            ClaimStatus::Revoked if claim.unknown_count > 0 => Some(Outcome::ended(
                DeliveryState::Failed,
                "the relay's answer was lost, and the invitation was revoked or replaced by a newer one before \
                 another attempt",
            )),
            ClaimStatus::Revoked => Some(Outcome::ended(
                DeliveryState::Cancelled,
                "the invitation was revoked or replaced by a newer one",
            )),
            ClaimStatus::Suppressed => Some(Outcome::ended(
                DeliveryState::Suppressed,
                "the recipient is on the suppression list",
            )),
            ClaimStatus::Expired => Some(Outcome::ended(
                DeliveryState::Failed,
                "the link expired before the email could be sent",
            )),
        }
    }

    async fn send(&self, claim: &Claim) -> Option<Outcome> {
        let mail = match self.write(claim) {
            Ok(mail) => mail,
            Err(reason) => return Some(Outcome::ended(DeliveryState::Failed, reason)),
        };
        let connection = match self.transport.connect().await {
            Ok(connection) => connection,
            Err(error) => return Some(self.relay_failed(&error)),
        };
        if self.stop.is_cancelled() {
            return Some(Outcome::put_back(Duration::ZERO));
        }
        match self.marker.mark(claim).await {
            Some(Mark::Marked) => {}
            Some(Mark::Revoked) => {
                return Some(Outcome::ended(
                    DeliveryState::Cancelled,
                    "the invitation was revoked or replaced by a newer one",
                ));
            }
            Some(Mark::Lost) => return None,
            None => return Some(Outcome::put_back(Duration::ZERO)),
        }
        let started = Instant::now();
        let result = connection.send(&mail).await;
        self.metrics.sent(started.elapsed(), result.is_ok());
        Some(self.judge(claim, result))
    }

    /// Opens the token and writes the email. The reason of a failure names nothing of its content.
    fn write(&self, claim: &Claim) -> Result<OutgoingMail, &'static str> {
        let mail = claim.mail.as_ref().map_err(|reason| *reason)?;
        let token_use = TokenUse {
            organization_id: &claim.organization_id.to_string(),
            invitation_id: &claim.invitation_id.to_string(),
            send_number: claim.send_number.unsigned_abs(),
            kind: mail.kind.as_str(),
            recipient: mail.recipient.as_str(),
            portal_url: &mail.content.portal_url,
        };
        let token = seal::open(&self.keys, &mail.sealed, token_use).map_err(|_| {
            "no private key opens the sealed token: a key was removed too early, or the request was changed \
             on its way"
        })?;
        let content = &mail.content;
        let values = Values {
            given_name: content.given_name.clone(),
            family_name: content.family_name.clone(),
            organization_name: content.organization_name.clone(),
            portal_url: content.portal_url.clone(),
            link: mail.kind.link(&content.portal_url, &token),
            logo_url: content.logo_url.clone(),
            color: content.color.clone(),
            expire_time: claim.expire_time,
            form_id: content.form_id.clone(),
        };
        let rendered = self
            .renderer
            .render(mail.kind, &mail.locale, &values)
            .map_err(|error| {
                tracing::error!(%error, "the email cannot be rendered");
                "the template cannot be rendered with the values of this email"
            })?;
        let headers = MessageHeaders {
            delivery_id: claim.delivery_id,
            sender_name: &content.sender_name,
            reply_to: content.reply_to.as_deref(),
            recipient: &mail.recipient,
            recipient_name: &format!("{} {}", content.given_name, content.family_name),
            date: SystemTime::from(claim.claim_time),
        };
        self.envelope
            .write(&headers, rendered)
            .map_err(|_| "the headers of the email cannot be written")
    }

    fn judge(&self, claim: &Claim, result: Result<Reply, SendError>) -> Outcome {
        match result {
            Ok(reply) => {
                self.relay.works();
                Outcome {
                    smtp_status: Some(reply.to_string()),
                    attempt: Attempt::MayHaveArrived,
                    reason: None,
                    ..Outcome::ended(DeliveryState::Sent, "")
                }
            }
            Err(SendError::Refused { stage, reply }) => match classify(stage, &reply) {
                Verdict::RelayTrouble => self.relay_failed(&SendError::Refused { stage, reply }),
                verdict => {
                    self.relay.works();
                    self.refused(claim, verdict, &reply)
                }
            },
            Err(SendError::AnswerLost) => self.answer_lost(claim),
            // No attempt: the relay never saw the whole of it.
            Err(SendError::Interrupted | SendError::Stale) => {
                Outcome::put_back(jittered(self.settings.retry_base))
            }
            Err(SendError::NeedsSmtpUtf8) => Outcome::ended(
                DeliveryState::Failed,
                "the relay does not take addresses outside ASCII (SMTPUTF8)",
            ),
            Err(error @ SendError::Relay(_)) => self.relay_failed(&error),
        }
    }

    fn relay_failed(&self, error: &SendError) -> Outcome {
        Outcome::put_back(self.relay.failed(&error.to_string()))
    }

    fn refused(&self, claim: &Claim, verdict: Verdict, reply: &Reply) -> Outcome {
        let ended = |reason| Outcome {
            attempt: Attempt::Refused,
            smtp_status: Some(reply.to_string()),
            ..Outcome::ended(DeliveryState::Failed, reason)
        };
        match verdict {
            Verdict::Fail | Verdict::RelayTrouble => ended("the relay refused the email"),
            Verdict::DeadMailbox => Outcome {
                suppress: true,
                ..ended("the mailbox does not exist")
            },
            Verdict::Retry | Verdict::Policy => {
                let delay = self.retry_delay(claim.attempt_count);
                if claim.claim_time + delay >= claim.expire_time {
                    return ended("the relay refused the email for so long that its link expires");
                }
                Outcome {
                    state: DeliveryState::Queued,
                    next: Some(Next::After(delay)),
                    ..ended("the relay refused the email for now; it is tried again")
                }
            }
        }
    }

    /// Doubles with each attempt.
    fn retry_delay(&self, attempt_count: i32) -> Duration {
        let doublings = u32::try_from(attempt_count).unwrap_or(0).min(20);
        let delay = self.settings.retry_base.saturating_mul(1 << doublings);
        jittered(delay.min(self.settings.retry_max))
    }

    fn answer_lost(&self, claim: &Claim) -> Outcome {
        let resend =
            self.settings.unknown_policy == UnknownPolicy::Resend && claim.unknown_count == 0;
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
