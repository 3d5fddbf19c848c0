//! A worker for each connection: takes the most urgent email that is ready, hands it over, and goes on.

use std::{panic::AssertUnwindSafe, time::Instant};

use futures::FutureExt as _;
use tracing::{Instrument as _, Span};

use super::{
    judge::Judge,
    leases::Leases,
    ready_queue::{ReadyMail, ReadyQueue},
    record::Recorder,
};
use crate::{
    db::delivery::{Claim, Outcome},
    domain::Reply,
    mail::{MailConnection as _, MailTransport, SendError},
};

/// What a worker works with.
#[derive(Clone)]
pub(super) struct Worker<T> {
    pub transport: T,
    pub queue: ReadyQueue,
    pub judge: Judge,
    pub leases: Leases,
    pub recorder: Recorder,
}

impl<T: MailTransport> Worker<T> {
    /// Works until the queue is closed.
    pub(super) async fn run(self) {
        let mut previous = None;
        while let Some((ready, permit)) = self.queue.next().await {
            let span = span(&ready.claim);
            let outcome = self.attempt(&ready).instrument(span).await;
            // While an outcome is recorded, the next email is sent, and no more: a process that dies leaves two emails of
            // each connection at most that were sent and are not recorded.
            if let Some(previous) = previous.take() {
                Recorder::recorded(previous).await;
            }
            previous = self.recorder.record(ready.claim, outcome).await;
            drop(permit);
        }
    }

    /// One attempt, in the trace of the event that asked for the email.
    async fn attempt(&self, ready: &ReadyMail) -> Outcome {
        // Whether the relay has the email when this panics, nobody knows.
        let attempt = AssertUnwindSafe(self.hand_over(ready)).catch_unwind().await;
        let outcome = attempt.unwrap_or_else(|_| {
            tracing::error!("handing an email over panicked");
            self.judge.answer_lost(&ready.claim)
        });
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
        outcome
    }

    async fn hand_over(&self, ready: &ReadyMail) -> Outcome {
        let connection = match self.transport.connect().await {
            Ok(connection) => connection,
            Err(error) => return self.judge.answered(&ready.claim, Err(error)),
        };
        // Another process takes the email when its lease ends.
        if !self.leases.is_safe(ready) {
            return self.judge.too_late();
        }
        let started = Instant::now();
        let result: Result<Reply, SendError> = connection.send(&ready.mail).await;
        self.judge.metrics.sent(started.elapsed(), result.is_ok());
        self.judge.answered(&ready.claim, result)
    }
}

fn span(claim: &Claim) -> Span {
    let span = tracing::info_span!(
        parent: None,
        "deliver",
        otel.kind = "client",
        organization.id = %claim.organization_id,
        invitation.id = claim.invitation_id.map(tracing::field::display),
        delivery.id = %claim.delivery_id,
        delivery.attempt = claim.attempt_count + 1,
        delivery.state = tracing::field::Empty,
        smtp.status = tracing::field::Empty,
        trace.id = tracing::field::Empty,
    );
    claim.trace_context.set_parent_of(&span);
    span
}
