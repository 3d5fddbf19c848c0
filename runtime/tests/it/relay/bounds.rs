//! How large events and batches are.

use usher_runtime::bus::MAX_EVENT_BYTES;
use usher_runtime::bus::Message;
use usher_runtime::outbox;
use usher_runtime::outbox::OutboxEvent;
use usher_runtime::trace_context::TraceContext;
use uuid::Uuid;

use super::harness::{Outbox, TYPE};
use crate::support::event;

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_is_bounded_by_events_and_by_bytes() {
    let messages: Vec<_> = (0..6)
        .map(|_| Message {
            body: vec![0; 1_000],
            ..event(TYPE)
        })
        .collect();
    let outbox = Outbox::with(&messages).await;
    // The third is the one that reaches 2,500 bytes; and one that is larger than the bound does not stop the
    // others for ever.
    for (max_events, max_bytes, expected) in [
        (100, 2_500, 0..3),
        (2, 1_000_000, 3..5),
        (100, 10, 5..6),
        (100, 10, 6..6),
    ] {
        let mut tx = outbox.begin().await;
        let batch = outbox::claim(&mut tx, max_events, max_bytes).await;
        let batch = batch.expect("claim");
        assert!(batch == messages[expected], "{} events", batch.len());
        let ids: Vec<_> = batch.iter().map(|message| message.event_id).collect();
        outbox::delete(&mut tx, &ids).await.expect("delete");
        tx.commit().await.expect("commit");
    }
    outbox.remove().await;
}

/// It could never leave, and would be tried for ever.
#[tokio::test(flavor = "multi_thread")]
async fn the_outbox_takes_nothing_that_cannot_be_published() {
    let outbox = Outbox::empty().await;
    let sized = |bytes, event_type: &'static str| OutboxEvent {
        event_id: Uuid::now_v7(),
        organization_id: Uuid::nil(),
        event_type,
        payload: vec![0; bytes],
        trace_context: TraceContext(None),
    };
    let (longest, longer) = ("ü".repeat(127), "ü".repeat(128));
    for (event, fits) in [
        (sized(MAX_EVENT_BYTES, longest.leak()), true),
        (sized(MAX_EVENT_BYTES + 1, TYPE), false),
        (sized(1, longer.leak()), false),
    ] {
        let mut tx = outbox.begin().await;
        let added = outbox::add(&mut tx, vec![event]).await;
        assert_eq!(added.is_ok(), fits, "{added:?}");
        tx.rollback().await.expect("rollback");
    }
    outbox.remove().await;
}
