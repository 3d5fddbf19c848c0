//! The age of the oldest event in the outbox, for operators: it grows while the broker is away, and while an event
//! is refused.

use std::time::Duration;

use sqlx::PgPool;
use tokio_util::sync::CancellationToken;

use crate::backoff::jittered;
use crate::database::{Scope, begin, within, without_data};

const INTERVAL: Duration = Duration::from_secs(15);

/// Longest that a measurement takes. The service waits for it at its end.
const LIMIT: Duration = Duration::from_secs(5);

/// Measures until `stop`.
pub(crate) async fn measure(pool: PgPool, stop: CancellationToken) {
    let age = opentelemetry::global::meter("usher")
        .f64_gauge("usher.outbox.age")
        .with_description("Age of the oldest event in the outbox; 0 if there is none.")
        .with_unit("s")
        .build();
    loop {
        match within(LIMIT, oldest(&pool)).await {
            Ok(seconds) => age.record(seconds, &[]),
            Err(error) => tracing::debug!(
                error = without_data(&error),
                "the age of the outbox cannot be measured"
            ),
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(jittered(INTERVAL)) => {}
        }
    }
}

/// The age of the oldest event in seconds; 0 if there is none. One look-up by the primary key, however full the
/// outbox is: how many events wait would take as long as there are many.
async fn oldest(pool: &PgPool) -> Result<f64, sqlx::Error> {
    let mut tx = begin(pool, Scope::Platform).await?;
    let seconds = sqlx::query_scalar!(
        r#"SELECT greatest(extract(epoch FROM clock_timestamp() - create_time), 0)::float8 AS "seconds!"
        FROM outbox ORDER BY event_id LIMIT 1"#
    )
    .fetch_optional(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(seconds.unwrap_or_default())
}
