//! Figures for operators: how many emails are where, and how long they wait and take.

use std::time::Duration;

use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Gauge, Histogram},
};

use crate::domain::DeliveryState;

/// The service's instruments.
#[derive(Debug, Clone)]
pub struct Metrics {
    states: Counter<u64>,
    throttle_seconds: Histogram<f64>,
    send_seconds: Histogram<f64>,
    wait_seconds: Histogram<f64>,
    put_back: Counter<u64>,
    circuit_breaker: Gauge<u64>,
    queue_length: Gauge<u64>,
    queue_age_seconds: Gauge<f64>,
}

/// From what a healthy relay takes to what a slow one does.
const SECONDS: [f64; 12] = [
    0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 10.0, 60.0, 600.0,
];

impl Metrics {
    /// Makes the instruments on the process's meter.
    #[must_use]
    pub fn new() -> Self {
        let meter = global::meter("usher");
        Self {
            states: meter
                .u64_counter("usher.deliveries")
                .with_description("Deliveries that came to a state.")
                .build(),
            throttle_seconds: meter
                .f64_histogram("usher.deliveries.throttle.delay")
                .with_description("How long a limit makes an email wait.")
                .with_unit("s")
                .with_boundaries(vec![1.0, 10.0, 60.0, 300.0, 3_600.0, 14_400.0, 86_400.0])
                .build(),
            send_seconds: meter
                .f64_histogram("usher.smtp.send.duration")
                .with_description("Time from MAIL FROM to the reply to the final dot.")
                .with_unit("s")
                .with_boundaries(SECONDS.to_vec())
                .build(),
            wait_seconds: meter
                .f64_histogram("usher.deliveries.wait.duration")
                .with_description("Time from being due to being claimed.")
                .with_unit("s")
                .with_boundaries(SECONDS.to_vec())
                .build(),
            put_back: meter
                .u64_counter("usher.deliveries.put_back")
                .with_description(
                    "Emails that went back to the queue for a fault that is not theirs.",
                )
                .build(),
            circuit_breaker: meter
                .u64_gauge("usher.smtp.circuit_breaker")
                .with_description(
                    "1 while the relay cannot be used, so that all emails wait; else 0.",
                )
                .build(),
            queue_length: meter
                .u64_gauge("usher.deliveries.due")
                .with_description("Emails that are due and not sent.")
                .build(),
            queue_age_seconds: meter
                .f64_gauge("usher.deliveries.due.age")
                .with_description("How long the oldest due email has been due.")
                .with_unit("s")
                .build(),
        }
    }

    /// Deliveries came to these states.
    pub fn states(&self, states: impl IntoIterator<Item = DeliveryState>) {
        for state in states {
            self.states.add(1, &[KeyValue::new("state", state.label())]);
        }
    }

    /// A limit makes an email wait.
    pub fn throttled(&self, delay: Duration) {
        self.throttle_seconds.record(delay.as_secs_f64(), &[]);
    }

    /// The relay answered.
    pub fn sent(&self, elapsed: Duration, accepted: bool) {
        self.send_seconds.record(
            elapsed.as_secs_f64(),
            &[KeyValue::new("accepted", accepted)],
        );
    }

    /// An email went back to the queue: `cause` is `unwritable`, `policy`, `relay`, `interrupted` or `late`.
    pub fn put_back(&self, cause: &'static str) {
        self.put_back.add(1, &[KeyValue::new("cause", cause)]);
    }

    /// Whether all emails wait for the relay.
    pub fn circuit_breaker(&self, is_open: bool) {
        self.circuit_breaker.record(u64::from(is_open), &[]);
    }

    /// An email was claimed so long after it was due.
    pub fn claimed(&self, wait: time::Duration) {
        self.wait_seconds.record(wait.as_seconds_f64(), &[]);
    }

    /// How many emails are due, and for how long the oldest.
    pub fn queue(&self, length: u64, age: Duration) {
        self.queue_length.record(length, &[]);
        self.queue_age_seconds.record(age.as_secs_f64(), &[]);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
