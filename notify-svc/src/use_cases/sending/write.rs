//! Writes emails: opens the token, renders, puts the headers on.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::future::join_all;
use tokio::{task::spawn_blocking, time::timeout};
use usher_runtime::seal::{self, PrivateKey, TokenUse};

use crate::{
    db::delivery::Claim,
    mail::{Envelope, MessageHeaders, OutgoingMail},
    render::{Renderer, Values},
};

/// Longest time in which an email is written.
const DEADLINE: Duration = Duration::from_secs(5);

/// What emails are written with.
pub(super) struct Writer {
    pub renderer: Arc<Renderer>,
    pub keys: Arc<[PrivateKey]>,
    pub envelope: Envelope,
}

/// Why an email was not written. The reasons are for staff, and name nothing of its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something is missing in this installation, which may be mended: a key, a template, a newer version.
    Unwritable(&'static str),
    /// It brings the service down, now and every time.
    Parked(&'static str),
}

/// Writes emails beside each other, each on a thread on which it can panic and take its time without harm to the others.
pub(super) async fn write_all(
    writer: &Arc<Writer>,
    claims: &[Claim],
) -> Vec<Result<OutgoingMail, Fault>> {
    join_all(claims.iter().map(|claim| {
        let (writer, claim) = (Arc::clone(writer), claim.clone());
        unless_it_fails(DEADLINE, move || writer.write(&claim))
    }))
    .await
}

async fn unless_it_fails<T: Send + 'static>(
    longest: Duration,
    write: impl FnOnce() -> Result<T, &'static str> + Send + 'static,
) -> Result<T, Fault> {
    match timeout(longest, spawn_blocking(write)).await {
        Ok(Ok(written)) => written.map_err(Fault::Unwritable),
        // The runtime is ending, and this task with it: that is no fault of the email.
        Ok(Err(error)) if error.is_cancelled() => pending().await,
        Ok(Err(_)) => {
            // The payload of a panic may hold anything; the panic hook has told where it was.
            tracing::error!("an email is parked: writing it panicked");
            Err(Fault::Parked(
                "the service failed while it wrote this email; retry it once the service is mended",
            ))
        }
        Err(_) => {
            tracing::error!("an email is parked: writing it does not end");
            Err(Fault::Parked(
                "writing this email took too long; retry it once the service is mended",
            ))
        }
    }
}

impl Writer {
    fn write(&self, claim: &Claim) -> Result<OutgoingMail, &'static str> {
        let mail = claim
            .mail
            .as_ref()
            .map_err(|_| "this version of the service cannot read the email; a newer one may")?;
        let invitation_id = claim
            .invitation_id
            .ok_or("this version sends invitations only")?;
        let token_use = TokenUse {
            organization_id: &claim.organization_id.to_string(),
            invitation_id: &invitation_id.to_string(),
            send_number: claim.send_number.unsigned_abs(),
            kind: mail.kind.as_str(),
            recipient: mail.recipient.as_str(),
            portal_url: &mail.content.portal_url,
        };
        let token = seal::open(&self.keys, &mail.sealed, token_use).map_err(|_| {
            "no private key opens the sealed token: a key is missing, or the request was changed on its way"
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
                tracing::error!(%error, "an email cannot be rendered");
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_email_that_panics_or_never_ends_is_parked() {
        let panics = unless_it_fails::<()>(DEADLINE, || panic!("on purpose")).await;
        assert!(matches!(panics, Err(Fault::Parked(_))));
        let (end, never) = std::sync::mpsc::channel::<()>();
        let wait = move || never.recv().map_err(|_| "ended");
        let endless = unless_it_fails(Duration::from_millis(1), wait).await;
        assert!(matches!(endless, Err(Fault::Parked(_))));
        drop(end);
        let faulty = unless_it_fails(DEADLINE, || Err::<(), _>("no key")).await;
        assert_eq!(faulty, Err(Fault::Unwritable("no key")));
    }
}
