//! Confirmed events per second: the bus beside lapin alone, in one run, in turn.
//!
//! `AMQP_URL=amqp://guest:guest@127.0.0.1:5672/%2f cargo run --release -p usher-runtime --example publish_rate`

#![expect(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark prints its rates"
)]

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context as _, Result};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::SecretString;
use usher_proto::topology::{INTERNAL_EXCHANGE, NOTIFY_INVITATIONS, routing_key};
use usher_runtime::bus::{EventBus, Message};
use usher_runtime::trace_context::TraceContext;
use uuid::Uuid;

const ROUNDS: usize = 5;
const EVENTS: usize = 50_000;
const OUTSTANDING: usize = 500;
/// What the relay claims at a time.
const BATCH: usize = 2_000;
const BODY: usize = 512;
const PREFIX: &str = "publish-rate.";

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::var("AMQP_URL").context("set AMQP_URL")?;
    let bus =
        EventBus::rabbitmq_with_prefix(&SecretString::from(url.as_str()), "publish-rate", PREFIX)?;
    let warm_up = bus.publish(&[event()]).await;
    anyhow::ensure!(warm_up == [Ok(())], "cannot publish: {warm_up:?}");

    let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;

    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let raw = raw_rate(&channel).await?;
        let ours = bus_rate(&bus).await?;
        println!(
            "lapin {raw:>7.0}/s   bus {ours:>7.0}/s   ratio {:.2}",
            ours / raw
        );
        ratios.push(ours / raw);
        let queue = format!("{PREFIX}{}", NOTIFY_INVITATIONS.name);
        channel
            .queue_purge(queue.into(), QueuePurgeOptions::default())
            .await?;
    }
    ratios.sort_by(f64::total_cmp);
    println!("median ratio {:.2}", ratios[ROUNDS / 2]);
    bus.close().await;
    Ok(())
}

async fn raw_rate(channel: &Channel) -> Result<f64> {
    let body = [7; BODY];
    let exchange = format!("{PREFIX}{INTERNAL_EXCHANGE}");
    let started = Instant::now();
    let mut unconfirmed = VecDeque::with_capacity(OUTSTANDING);
    for _ in 0..EVENTS {
        if unconfirmed.len() == OUTSTANDING
            && let Some(confirm) = unconfirmed.pop_front()
        {
            confirmed(confirm).await?;
        }
        let sent = channel.basic_publish(
            exchange.as_str().into(),
            routing_key::INVITATION_REQUESTED.into(),
            BasicPublishOptions::default(),
            &body,
            BasicProperties::default().with_delivery_mode(2),
        );
        unconfirmed.push_back(sent.await?);
    }
    for confirm in unconfirmed {
        confirmed(confirm).await?;
    }
    Ok(EVENTS as f64 / started.elapsed().as_secs_f64())
}

async fn confirmed(confirm: lapin::PublisherConfirm) -> Result<()> {
    anyhow::ensure!(confirm.await?.is_ack(), "refused");
    Ok(())
}

async fn bus_rate(bus: &EventBus) -> Result<f64> {
    let batches: Vec<Vec<Message>> = (0..EVENTS / BATCH)
        .map(|_| (0..BATCH).map(|_| event()).collect())
        .collect();
    let started = Instant::now();
    for batch in &batches {
        let results = bus.publish(batch).await;
        anyhow::ensure!(results.iter().all(Result::is_ok), "not confirmed");
    }
    Ok(EVENTS as f64 / started.elapsed().as_secs_f64())
}

fn event() -> Message {
    Message {
        event_id: Uuid::now_v7(),
        event_type: routing_key::INVITATION_REQUESTED.to_owned(),
        body: vec![7; BODY],
        trace_context: TraceContext(None),
    }
}
