//! Logs, traces and metrics of a process.

use std::{
    io::IsTerminal as _,
    panic::{Location, PanicHookInfo},
};

use anyhow::Context as _;
use opentelemetry::{KeyValue, global, trace::TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::{
    Resource,
    metrics::SdkMeterProvider,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracerProvider},
};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::{LogFormat, TelemetryArgs};

/// What must be kept until the process ends.
#[derive(Debug)]
pub struct Telemetry {
    tracer_provider: SdkTracerProvider,
    meter_provider: SdkMeterProvider,
    /// The metrics that `/metrics` shows.
    pub registry: prometheus::Registry,
}

/// Sets up logs on standard error, traces and metrics for the whole process.
///
/// Spans are exported with OTLP when an endpoint is given, and trace context is always passed on, so
/// that a service without a collector does not break the trace of its callers.
///
/// # Errors
/// If a setting is malformed, or telemetry was set up before.
pub fn init(service_name: &'static str, args: &TelemetryArgs) -> anyhow::Result<Telemetry> {
    // Two providers in one process would make rustls refuse to choose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    global::set_text_map_propagator(TraceContextPropagator::new());

    let resource = Resource::builder()
        .with_service_name(service_name)
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let registry = prometheus::Registry::new();
    let meter_provider = meter_provider(&registry, resource.clone(), args)?;
    global::set_meter_provider(meter_provider.clone());
    let tracer_provider = tracer_provider(resource, args)?;

    // lapin logs the whole body of a message that comes back.
    let no_bodies = "lapin::returned_messages=off";
    let filter = EnvFilter::try_new(&args.log_filter)
        .context("LOG_FILTER is malformed")?
        .add_directive(no_bodies.parse()?);
    // Colours are for terminals alone, and not for people who want none (no-color.org).
    let has_colors = std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(has_colors)
        .with_writer(std::io::stderr);
    let lines = match args.log_format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        LogFormat::Pretty => lines.compact().boxed(),
    };
    // Not an `EnvFilter`, which looks at each span anew whenever a task enters or leaves it: 7 % of a create.
    let recorded = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("lapin", LevelFilter::OFF);
    let traces = tracing_opentelemetry::layer()
        .with_tracer(tracer_provider.tracer(service_name))
        .with_filter(recorded);
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces)
        .try_init()
        .context("telemetry is set up already")?;
    std::panic::set_hook(Box::new(log_panic));

    Ok(Telemetry {
        tracer_provider,
        meter_provider,
        registry,
    })
}

/// Logs where a panic was. Its payload may hold anything: what a caller sent, a password, a token.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location();
    tracing::error!(
        file = location.map(Location::file),
        line = location.map(Location::line),
        thread = std::thread::current().name(),
        "a panic"
    );
}

fn collector(args: &TelemetryArgs) -> Option<&String> {
    args.otlp_endpoint
        .as_ref()
        .filter(|endpoint| !endpoint.is_empty())
}

fn tracer_provider(resource: Resource, args: &TelemetryArgs) -> anyhow::Result<SdkTracerProvider> {
    let provider = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = collector(args) else {
        // What nobody exports need not be recorded: ids are enough to pass a trace on.
        let unrecorded = Sampler::ParentBased(Box::new(Sampler::AlwaysOff));
        return Ok(provider.with_sampler(unrecorded).build());
    };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT is not usable for traces")?;
    Ok(provider.with_batch_exporter(exporter).build())
}

fn meter_provider(
    registry: &prometheus::Registry,
    resource: Resource,
    args: &TelemetryArgs,
) -> anyhow::Result<SdkMeterProvider> {
    let prometheus = opentelemetry_prometheus::exporter()
        .with_registry(registry.clone())
        .build()?;
    let provider = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_reader(prometheus);
    let Some(endpoint) = collector(args) else {
        return Ok(provider.build());
    };
    let exporter = opentelemetry_otlp::MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT is not usable for metrics")?;
    Ok(provider.with_periodic_exporter(exporter).build())
}

impl Telemetry {
    /// Sends what is still held back. Call it last.
    pub fn shutdown(self) {
        if let Err(error) = self.tracer_provider.shutdown() {
            tracing::warn!(%error, "spans were lost at shutdown");
        }
        if let Err(error) = self.meter_provider.shutdown() {
            tracing::warn!(%error, "metrics were lost at shutdown");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_is_logged_with_its_place_and_without_its_payload() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .finish();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(log_panic));
        let panicked = tracing::subscriber::with_default(subscriber, || {
            std::panic::catch_unwind(|| panic!("the password is swordfish"))
        });
        std::panic::set_hook(before);
        assert!(panicked.is_err());
        let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(lines.contains("telemetry.rs"), "{lines}");
        assert!(!lines.contains("swordfish"), "{lines}");
    }
}
