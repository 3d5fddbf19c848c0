//! Keys that are fetched over HTTPS.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use axum::body::Bytes;
use http::{StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::jwks::MAX_BYTES;
use crate::{tls, watched_files::WatchedFiles};

/// Longest that fetching may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the keys are, and when they are fetched.
pub(super) struct RemoteKeys {
    uri: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Between two fetches: a key that the issuer removed is accepted for this long at most, while the issuer
    /// answers.
    pub(super) refresh_interval: Duration,
    /// Between two fetches for tokens that name an unknown key, and after one that failed.
    pub(super) minimum_interval: Duration,
    wanted: Notify,
    /// When the last fetch ended, well or not.
    last_fetch: watch::Sender<Option<Instant>>,
}

impl RemoteKeys {
    /// # Errors
    /// If the URL is not https, or the file of authorities cannot be used.
    pub(super) fn new(uri: Uri, authorities: Option<&Path>) -> anyhow::Result<Self> {
        ensure!(
            uri.scheme_str() == Some("https") && uri.host().is_some(),
            "JWT_JWKS_URL must begin with https:// and name a host"
        );
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = authorities {
            let (file, contents) = WatchedFiles::read(vec![("JWT_CA_FILE", path.to_owned())])?;
            let added = tls::authorities_from(&file.name(0), &contents.concat())?;
            roots.extend(added.roots);
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_only()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            uri,
            client,
            refresh_interval: Duration::from_mins(5),
            minimum_interval: Duration::from_secs(10),
            wanted: Notify::new(),
            last_fetch: watch::Sender::new(None),
        })
    }

    /// Fetches the keys now and then and hands them to `take_over`; never ends. The fetches are made here and
    /// not by the calls that want them: those can be cancelled by their callers.
    pub(super) async fn follow(&self, take_over: impl Fn(&[u8]) -> anyhow::Result<()>) {
        loop {
            let result = self.fetch().await.and_then(|content| take_over(&content));
            let pause = match result {
                Ok(()) => self.refresh_interval,
                Err(error) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "JWT_JWKS_URL: the keys cannot be fetched; the last ones stay in use"
                    );
                    self.minimum_interval
                }
            };
            let end = Instant::now();
            self.last_fetch.send_replace(Some(end));
            // Someone may have asked while the fetch was under way; its end answers that too.
            let wanted = async {
                self.wanted.notified().await;
                tokio::time::sleep_until(end + self.minimum_interval).await;
            };
            tokio::select! {
                () = wanted => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Waits for a fetch that ends after this was called, for as long as one may take. Returns at once if the
    /// last one is not the least interval ago: anybody can send tokens with made-up key ids.
    pub(super) async fn fetched_again(&self) {
        let mut last_fetch = self.last_fetch.subscribe();
        let last = *last_fetch.borrow_and_update();
        if last.is_some_and(|last| last.elapsed() < self.minimum_interval) {
            return;
        }
        self.wanted.notify_one();
        let _ = tokio::time::timeout(FETCH_TIMEOUT, last_fetch.changed()).await;
    }

    async fn fetch(&self) -> anyhow::Result<Bytes> {
        let fetch = async {
            let response = self.client.get(self.uri.clone()).await?;
            let status = response.status();
            ensure!(status == StatusCode::OK, "the issuer answers {status}");
            let body = Limited::new(response.into_body(), MAX_BYTES);
            let body = body.collect().await.map_err(anyhow::Error::from_boxed)?;
            Ok(body.to_bytes())
        };
        tokio::time::timeout(FETCH_TIMEOUT, fetch)
            .await
            .context("the issuer does not answer in time")?
    }
}
