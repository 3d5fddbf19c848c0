//! P5: from the queue to smtp-sink, compared with smtp-source. P6: the way of a single invitation on an idle system.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use usher_proto::topology::routing_key;
use usher_tests::{BrokerNames, setting};

use crate::{
    Settings, baseline,
    client::Client,
    mail::{Inbox, Sink},
    milliseconds, percentile,
    report::Report,
    system::{System, mebibytes},
};

/// Callers of `CreateAccount` that fill the queue.
const CALLERS: usize = 32;
/// Invitations on an idle system.
const INVITATIONS: usize = 100;

pub async fn all_mails(
    system: &System,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let names = BrokerNames::create("bench-mail");
    let prefix = [("AMQP_PREFIX", names.prefix.as_str())];
    let account_svc = system.start_account_svc(&prefix).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    let waiting = client.create_for(CALLERS, settings.time).await?.len();
    system.wait_for_empty_outbox().await?;
    account_svc.kill().await?;
    let sink = Sink::start()?;
    let notify_svc = system.start_notify_svc(&sink.url(), &prefix).await?;
    let started = Instant::now();
    system.wait_for_sent(waiting).await?;
    let ours = waiting as f64 / started.elapsed().as_secs_f64();
    let baseline = sink.smtp_source(waiting)?;
    let what = format!("queue to relay, {waiting} mails");
    let compared = Some(("smtp-source", baseline, ours / baseline));
    report.row("P5", &what, ours, "/s", compared, "≥ 0.4");
    let memory = mebibytes(&notify_svc, "VmHWM")?;
    let what = "notify-svc under P5, highest";
    report.row("P9", what, memory, "MiB", None, "≤ 80 MiB");
    notify_svc.kill().await?;
    names.remove().await
}

/// From the answer of `CreateAccount` to the broker, and to the relay's answer.
pub async fn one_mail(system: &System, report: &mut Report) -> anyhow::Result<()> {
    let mut inbox = Inbox::start().await?;
    let account_svc = system.start_account_svc(&[]).await?;
    let notify_svc = system.start_notify_svc(&inbox.url, &[]).await?;
    system.wait_until_ready("notify-svc").await?;
    let (connection, mut events) = events(system).await?;
    let client = Client::connect(&account_svc.grpc_url).await?;
    let (mut published, mut accepted) = (Vec::new(), Vec::new());
    for number in 0..INVITATIONS + 10 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.create().await?;
        let answered = Instant::now();
        let event = tokio::time::timeout(Duration::from_secs(20), events.next());
        event.await?.context("no event")??;
        let received = Instant::now();
        let mail = inbox.next().await?;
        // The first ones make connections and prepare statements.
        if number >= 10 {
            published.push(received.saturating_duration_since(answered));
            accepted.push(mail.accepted.saturating_duration_since(answered));
        }
    }
    connection.close(200, "done".into()).await?;
    account_svc.kill().await?;
    notify_svc.kill().await?;

    let commit = milliseconds(baseline::commit(system).await?);
    let publish = milliseconds(baseline::one_publish().await?);
    let exchange = milliseconds(inbox.exchange().await?);
    let parts = format!("commit {commit:.2} ms, publish {publish:.2} ms, SMTP {exchange:.2} ms");
    report.note("P6", "parts alone, p50", &parts);
    for (times, what, parts, name, goals) in [
        (
            &mut published,
            "event received",
            publish,
            "publish",
            ["-", "-"],
        ),
        (
            &mut accepted,
            "mail accepted",
            commit + publish + exchange,
            "commit + publish + SMTP",
            ["≤ 3×", "≤ 10×"],
        ),
    ] {
        for (percent, goal) in [50, 99].into_iter().zip(goals) {
            let value = milliseconds(percentile(times, percent));
            let what = format!("CreateAccount answered to {what}, p{percent}");
            let compared = Some((name, parts, value / parts));
            report.row("P6", &what, value, "ms", compared, goal);
        }
    }
    Ok(())
}

/// The invitations that are published from now on, on a queue that ends with its connection.
async fn events(system: &System) -> anyhow::Result<(Connection, Consumer)> {
    let connection =
        Connection::connect(&setting("AMQP_URL")?, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let exclusive = QueueDeclareOptions {
        exclusive: true,
        ..Default::default()
    };
    let queue = channel
        .queue_declare("".into(), exclusive, FieldTable::default())
        .await?;
    channel
        .queue_bind(
            queue.name().clone(),
            system.exchange().into(),
            routing_key::INVITATION_REQUESTED.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await?;
    let no_ack = BasicConsumeOptions {
        no_ack: true,
        ..Default::default()
    };
    let consumer = channel
        .basic_consume(
            queue.name().clone(),
            "bench".into(),
            no_ack,
            FieldTable::default(),
        )
        .await?;
    Ok((connection, consumer))
}
