//! What tests take of the broker at `AMQP_URL`, and remove again.

use anyhow::Context as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{ExchangeDeleteOptions, QueueDeleteOptions},
};
use usher_proto::topology;
use uuid::Uuid;

/// The value of an environment variable that names a server.
///
/// # Errors
/// If it is not set; says how to set it.
pub fn setting(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| {
        format!("{name} is not set: run `make test`, which starts the servers, or set it yourself")
    })
}

/// Exchange and queues of its own on a broker that others use too.
#[derive(Debug)]
pub struct BrokerNames {
    /// What `AMQP_PREFIX` is set to.
    pub prefix: String,
}

impl BrokerNames {
    /// Names that nobody else uses. The services declare them.
    #[must_use]
    pub fn create(prefix: &str) -> Self {
        Self {
            prefix: format!("{prefix}-{}.", Uuid::now_v7().simple()),
        }
    }

    /// Deletes what the services have declared.
    ///
    /// # Errors
    /// If the broker at `AMQP_URL` is away.
    pub async fn remove(self) -> anyhow::Result<()> {
        let url = setting("AMQP_URL")?;
        let connection = Connection::connect(&url, ConnectionProperties::default())
            .await
            .context("AMQP_URL: the broker does not answer")?;
        let channel = connection.create_channel().await?;
        for queue in topology::QUEUES {
            for name in [queue.name, queue.dead_letter_queue] {
                let name = format!("{}{name}", self.prefix);
                channel
                    .queue_delete(name.into(), QueueDeleteOptions::default())
                    .await?;
            }
        }
        for exchange in [topology::EVENTS_EXCHANGE, topology::INTERNAL_EXCHANGE] {
            let exchange = format!("{}{exchange}", self.prefix);
            channel
                .exchange_delete(exchange.into(), ExchangeDeleteOptions::default())
                .await?;
        }
        connection.close(200, "done".into()).await?;
        Ok(())
    }
}
