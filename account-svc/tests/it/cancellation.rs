use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, stream};
use tonic::transport::Channel;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer, layer::SubscriberExt as _, util::SubscriberInitExt as _};
use usher_proto::account::v1::{
    CreateAccountRequest, account_service_client::AccountServiceClient,
};

use crate::support::{Service, new_account};

/// Callers hang up at random moments; sqlx 0.9.0 would put open transactions back into the pool if the
/// calls were dropped with them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_calls_leave_nothing_half_done() {
    let reused = OpenTransactions::watch();
    let mut service = Service::start().await;
    let organization = service.organization().await;
    let endpoint = Channel::from_shared(format!("http://{}", service.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();

    let calls = stream::iter(0..10_000_u64).map(|index| {
        let mut client = AccountServiceClient::new(channel.clone());
        let request = CreateAccountRequest {
            // Names that are unlike each other: the check of duplicates shall not stop the call.
            ..new_account(
                &organization,
                &letters(index),
                &letters(index * 7 + 3),
                &format!("c{index}@example.org"),
            )
        };
        // Spread over the time that a call takes, without a clock or dice: the same in each run.
        let patience = Duration::from_micros((index * 7919) % 40_000);
        async move {
            let call = tokio::time::timeout(patience, client.create_account(request));
            matches!(call.await, Ok(Ok(_)))
        }
    });
    let answered = calls
        .buffer_unordered(64)
        .filter(|&done| std::future::ready(done))
        .count()
        .await;
    assert!(answered < 10_000, "nothing was cancelled");

    // On the same pool, every later write is kept.
    for index in 1_000_000..1_000_100_u64 {
        let request = new_account(
            &organization,
            &letters(index),
            &letters(index * 7 + 3),
            &format!("c{index}@example.org"),
        );
        let account = service.create(request).await;
        service.account(&organization, &account.account_id).await;
    }
    service.pool_is_clean().await;
    assert_eq!(
        reused.seen(),
        0,
        "connections came back from the pool inside a transaction"
    );

    let mut admin = service.admin().await;
    let half_made: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM accounts a
        LEFT JOIN invitations i USING (organization_id, account_id)
        LEFT JOIN tokens t ON t.invitation_id = i.invitation_id
        LEFT JOIN audit_events e
            ON e.organization_id = a.organization_id AND e.resource_id = a.account_id
        WHERE t.token_hash IS NULL OR e.audit_event_id IS NULL OR a.last_invitation_id IS NULL",
    )
    .fetch_one(&mut admin)
    .await
    .unwrap();
    assert_eq!(half_made, 0);
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM accounts")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert!(
        kept >= i64::try_from(answered).unwrap() + 100,
        "{kept} kept, {answered} answered"
    );
}

/// Counts what PostgreSQL says to a BEGIN on a connection that is in a transaction already. The next user of
/// such a connection works inside that transaction, with its scope, and hides it by committing it: the
/// warning is all that is seen from outside.
#[derive(Clone, Default)]
struct OpenTransactions(Arc<AtomicUsize>);

impl OpenTransactions {
    fn watch() -> Self {
        let watch = Self::default();
        tracing_subscriber::registry()
            .with(watch.clone())
            .try_init()
            .expect("the only subscriber of this program");
        watch
    }

    fn seen(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl<S: Subscriber> Layer<S> for OpenTransactions {
    fn on_event(&self, event: &Event<'_>, _: layer::Context<'_, S>) {
        struct Message(bool);
        impl Visit for Message {
            fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
                self.0 |= format!("{value:?}").contains("already a transaction in progress");
            }
        }
        if event.metadata().target().starts_with("sqlx::postgres") {
            let mut message = Message(false);
            event.record(&mut message);
            self.0.fetch_add(usize::from(message.0), Ordering::SeqCst);
        }
    }
}

fn letters(mut number: u64) -> String {
    let mut letters = String::new();
    for _ in 0..8 {
        // A step that spreads neighbours over the alphabet.
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        letters.push(char::from(
            b'a' + u8::try_from((number >> 33) % 26).unwrap(),
        ));
    }
    letters
}
