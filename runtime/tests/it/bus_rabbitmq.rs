//! What RabbitMQ alone can do to the bus.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use lapin::ExchangeKind;
use lapin::options::{BasicGetOptions, ExchangeDeclareOptions, ExchangeDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use secrecy::SecretString;
use usher_proto::topology::{
    ACCOUNT_DELIVERIES, CONTENT_TYPE, INTERNAL_EXCHANGE, NOTIFY_INVITATIONS, routing_key,
};
use usher_runtime::bus::{BusError, EventBus, PublishError};
use usher_runtime::trace_context::TraceContext;
use usher_tests::proxy::{Mode, Proxy};

use super::support::{Broker, amqp_url, event, events, receive, receive_one, soon};

const INVITATION: &str = routing_key::INVITATION_REQUESTED;
const DELIVERY: &str = routing_key::DELIVERY_CHANGED;
const ACCOUNT_CREATED: &str = routing_key::ACCOUNT_CREATED;

#[tokio::test(flavor = "multi_thread")]
async fn names_exactly_the_events_that_found_no_queue() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
    broker.delete_queue(ACCOUNT_DELIVERIES.name).await;

    // Interleaved, so that acknowledgements are coalesced and returns come with foreign confirms.
    let batch: Vec<_> = (0..1_200)
        .map(|index| event(if index % 3 == 0 { DELIVERY } else { INVITATION }))
        .collect();
    let results = soon("results", bus.publish(&batch)).await;
    for (message, result) in batch.iter().zip(&results) {
        let expected = if message.event_type == DELIVERY {
            Err(PublishError::Unroutable)
        } else {
            Ok(())
        };
        assert_eq!(*result, expected, "{}", message.event_type);
    }

    // The next batch declares the queue again.
    assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
    bus.close().await;
    broker.remove().await;
}

/// The broker then confirms what does not reach Usher's queue.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_is_declared_again_though_another_takes_its_events() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
    let (_connection, channel) = broker.raw().await;
    broker
        .bind_another(&channel, DELIVERY, FieldTable::default())
        .await;
    broker.delete_queue(ACCOUNT_DELIVERIES.name).await;
    assert_eq!(
        bus.publish(&[event(DELIVERY)]).await,
        [Ok(())],
        "it is lost"
    );
    soon("declared again", async {
        while !broker.has_queue(ACCOUNT_DELIVERIES.name).await {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
        }
    })
    .await;
    let sent = event(DELIVERY);
    assert_eq!(bus.publish(std::slice::from_ref(&sent)).await, [Ok(())]);
    let mut subscription = bus.subscribe(ACCOUNT_DELIVERIES);
    soon("it arrives", async {
        loop {
            let received = receive_one(&mut subscription).await;
            let is_last = received.message.event_id == sent.event_id;
            received.ack().await.expect("ack");
            if is_last {
                break;
            }
        }
    })
    .await;
    bus.close().await;
    broker.remove().await;
}

/// They hold addresses and sealed tokens.
#[tokio::test(flavor = "multi_thread")]
async fn who_listens_to_all_events_gets_none_of_the_internal_ones() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    assert_eq!(bus.publish(&[event(ACCOUNT_CREATED)]).await, [Ok(())]);
    let (_connection, channel) = broker.raw().await;
    broker
        .bind_another(&channel, "#", FieldTable::default())
        .await;
    let batch = [event(INVITATION), event(DELIVERY), event(ACCOUNT_CREATED)];
    assert_eq!(bus.publish(&batch).await, [Ok(()), Ok(()), Ok(())]);
    let queue = broker.name("another");
    let get = || channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
    let received = get().await.expect("get").expect("an event");
    assert_eq!(received.routing_key.as_str(), ACCOUNT_CREATED);
    assert!(get().await.expect("get").is_none());
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_of_another_type_is_no_lost_connection() {
    let broker = Broker::new();
    let (_connection, channel) = broker.raw().await;
    let exchange = broker.name(INTERNAL_EXCHANGE);
    channel
        .exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Fanout,
            ExchangeDeclareOptions::default(),
            FieldTable::default(),
        )
        .await
        .expect("declare");
    let bus = broker.bus(&amqp_url());
    let refused = bus.publish(&[event(DELIVERY)]).await;
    assert_eq!(refused, [Err(PublishError::Undeclared)]);
    let problem = bus.problem().expect("it is shown by readiness");
    assert!(problem.contains("refuses"), "{problem}");
    channel
        .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
        .await
        .expect("delete");
    assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
    assert_eq!(bus.problem(), None);
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_whose_queue_is_deleted_declares_it_and_goes_on() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let other = broker.bus(&amqp_url());
    for _ in 0..3 {
        let sent = event(INVITATION);
        // The queue is declared first and bound then.
        soon("routed", async {
            while other.publish(std::slice::from_ref(&sent)).await != [Ok(())] {}
        })
        .await;
        let received = receive_one(&mut subscription).await;
        assert_eq!(received.message.event_id, sent.event_id);
        received.ack().await.expect("ack");
        broker.delete_queue(NOTIFY_INVITATIONS.name).await;
        // Nothing is published meanwhile, which would declare it too.
        soon("declared again", async {
            while !broker.has_queue(NOTIFY_INVITATIONS.name).await {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    other.close().await;
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_batch_does_not_confuse_the_next() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    for round in 0..20 {
        assert_eq!(bus.publish(&[event(DELIVERY)]).await, [Ok(())]);
        broker.delete_queue(ACCOUNT_DELIVERIES.name).await;
        let cancelled = events(1_000, DELIVERY);
        let moment = Duration::from_micros(500 * round);
        let _ = tokio::time::timeout(moment, bus.publish(&cancelled)).await;
        let batch = events(100, INVITATION);
        assert_eq!(bus.publish(&batch).await, vec![Ok(()); 100]);
    }
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn goes_on_after_its_connections_were_cut() {
    let broker = Broker::new();
    let proxy = Proxy::in_front_of(&amqp_url()).await.expect("proxy");
    let bus = broker.bus(proxy.url());
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);

    for _ in 0..5 {
        let sent = event(INVITATION);
        // In the moment of the cut a batch may fail; it says so, and the next try succeeds.
        let published = soon("publish again", async {
            while bus.publish(std::slice::from_ref(&sent)).await != [Ok(())] {
                bus.connected().await;
            }
        });
        published.await;
        let held = receive_one(&mut subscription).await;
        assert_eq!(held.message.event_id, sent.event_id);
        proxy.cut();
        // What was held when the connection broke comes again, at least once.
        let again = receive_one(&mut subscription).await;
        assert_eq!(again.message.event_id, sent.event_id);
        assert_eq!(held.ack().await, Err(BusError::AckLost));
        again.ack().await.expect("ack");
    }
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn loses_nothing_that_was_confirmed_while_connections_are_cut() {
    let broker = Broker::new();
    let proxy = Proxy::in_front_of(&amqp_url()).await.expect("proxy");
    let bus = broker.bus(proxy.url());
    let mut subscription = bus.subscribe(NOTIFY_INVITATIONS);
    let publisher = bus.clone();
    let mut publishing = tokio::spawn(async move {
        let mut confirmed = HashSet::new();
        for round in 0..60 {
            let batch = events(200, INVITATION);
            if round % 10 == 9 {
                proxy.cut();
            }
            let results = publisher.publish(&batch).await;
            let ids = batch
                .iter()
                .zip(results)
                .filter(|(_, result)| result.is_ok());
            confirmed.extend(ids.map(|(message, _)| message.event_id));
        }
        // The proxy ends with its owner, and what is confirmed is still to be received through it.
        (confirmed, proxy)
    });
    let mut received = HashSet::new();
    let (confirmed, _proxy) = loop {
        let batch = tokio::select! {
            batch = subscription.next_batch(100) => batch,
            done = &mut publishing => break done.expect("publisher"),
        };
        for delivery in batch {
            received.insert(delivery.message.event_id);
            let _ = delivery.ack().await; // Lost with a connection: it comes again.
        }
    };
    assert!(confirmed.len() > 5_000, "{} confirmed", confirmed.len());
    while !confirmed.is_subset(&received) {
        for delivery in receive(&mut subscription, 100).await {
            received.insert(delivery.message.event_id);
            let _ = delivery.ack().await;
        }
    }
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fails_within_a_bound_while_the_broker_is_away() {
    let broker = Broker::new();
    let proxy = Proxy::in_front_of(&amqp_url()).await.expect("proxy");
    let bus = broker.bus(proxy.url());
    soon("connected", bus.connected()).await;
    proxy.set(Mode::Refuse);
    proxy.cut();
    for _ in 0..2 {
        let started = Instant::now();
        let results = soon("results", bus.publish(&events(700, INVITATION))).await;
        assert_eq!(results, vec![Err(PublishError::Disconnected); 700]);
        assert!(started.elapsed() < Duration::from_secs(8));
    }
    assert!(!bus.is_connected());
    proxy.set(Mode::Forward);
    soon("connected", bus.connected()).await;
    assert!(bus.is_connected());
    assert_eq!(bus.publish(&[event(INVITATION)]).await, [Ok(())]);
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn says_why_the_broker_refuses_it_and_not_the_password() {
    let url = amqp_url();
    let (_, server) = url.rsplit_once('@').expect("a URL with a password");
    let wrong_password = format!("amqp://guest:secret-7@{server}");
    let (server, _) = url.rsplit_once('/').expect("a URL with a virtual host");
    let wrong_vhost = format!("{server}/no-such-vhost");
    for (url, why) in [
        (wrong_password, "ACCESS_REFUSED"),
        (wrong_vhost, "no-such-vhost"),
    ] {
        let bus = Broker::new().bus(&url);
        let problem = soon("refused", async {
            loop {
                match bus.problem() {
                    Some(problem) if problem != "connecting" => break problem,
                    _ => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        })
        .await;
        assert!(
            problem.starts_with("AMQP_URL: cannot connect: "),
            "{problem}"
        );
        assert!(problem.contains(why), "{problem}");
        assert!(!problem.contains("secret-7"), "{problem}");
        bus.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_up_a_connection_that_does_not_answer() {
    let broker = Broker::new();
    let proxy = Proxy::in_front_of(&amqp_url()).await.expect("proxy");
    let bus = broker.bus(proxy.url());
    assert_eq!(bus.publish(&[event(INVITATION)]).await, [Ok(())]);
    proxy.set(Mode::Hold);
    let results = soon("results", bus.publish(&events(700, INVITATION))).await;
    assert!(results.iter().all(Result::is_err));
    assert!(results.contains(&Err(PublishError::Unconfirmed)));
    proxy.set(Mode::Forward);
    let again = soon("publish again", async {
        while bus.publish(&[event(INVITATION)]).await != [Ok(())] {
            bus.connected().await;
        }
    });
    again.await;
    bus.close().await;
    broker.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_the_properties_that_others_rely_on() {
    let broker = Broker::new();
    let bus = broker.bus(&amqp_url());
    let mut sent = event(INVITATION);
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    sent.trace_context = TraceContext(Some(traceparent.to_owned()));
    assert_eq!(bus.publish(std::slice::from_ref(&sent)).await, [Ok(())]);

    let (_connection, channel) = broker.raw().await;
    let queue = broker.name(NOTIFY_INVITATIONS.name);
    let got = channel
        .basic_get(queue.into(), BasicGetOptions { no_ack: true })
        .await
        .expect("get")
        .expect("a message");
    let properties = &got.properties;
    let id = sent.event_id.to_string();
    assert_eq!(got.data, sent.body);
    assert_eq!(got.routing_key.as_str(), INVITATION);
    assert_eq!(properties.message_id().as_ref().expect("id").as_str(), id);
    assert_eq!(
        properties.kind().as_ref().expect("type").as_str(),
        INVITATION
    );
    assert_eq!(
        properties
            .content_type()
            .as_ref()
            .expect("content type")
            .as_str(),
        CONTENT_TYPE
    );
    assert_eq!(*properties.delivery_mode(), Some(2));
    let made = sent.event_id.get_timestamp().expect("UUIDv7").to_unix().0;
    assert_eq!(*properties.timestamp(), Some(made));
    let headers = properties.headers().as_ref().expect("headers");
    assert_eq!(
        headers.inner().get("traceparent"),
        Some(&AMQPValue::LongString(traceparent.into()))
    );
    bus.close().await;
    broker.remove().await;
}

#[tokio::test]
async fn a_bad_url_is_refused_without_repeating_it() {
    let url = SecretString::from("amqp://usher:secret@host:port/");
    let error = EventBus::rabbitmq(&url, "test").err().expect("refused");
    assert_eq!(error, BusError::InvalidUrl);
    assert!(!error.to_string().contains("secret"));
}
