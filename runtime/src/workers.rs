//! Background work that does not end unnoticed: each worker is restarted, counted and shown while it is
//! down.

use std::{
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use opentelemetry::{KeyValue, global, metrics::Counter};
use tokio::time::{sleep, timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument as _;

use crate::backoff::Backoff;

/// How restarts are timed.
#[derive(Debug, Clone, Copy)]
struct Timing {
    /// Pause before the first restart; doubles with each.
    first_pause: Duration,
    longest_pause: Duration,
    /// A worker that has run for so long since it was restarted is up.
    steady: Duration,
}

const TIMING: Timing = Timing {
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_mins(1),
    steady: Duration::from_secs(10),
};

static RESTARTS: LazyLock<Counter<u64>> = LazyLock::new(|| {
    global::meter("usher")
        .u64_counter("usher.worker.restarts")
        .with_description(
            "Background workers that panicked or ended early, and were started again.",
        )
        .build()
});

/// A group of background workers with one stop signal. Clones are the same group.
#[derive(Debug, Clone)]
pub struct Workers {
    stop: CancellationToken,
    /// Drops what is left over after the limit.
    abort: CancellationToken,
    tracker: TaskTracker,
    running: Names,
    down: Names,
    timing: Timing,
}

#[derive(Debug, Clone, Default)]
struct Names(Arc<Mutex<BTreeSet<&'static str>>>);

impl Names {
    fn lock(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Vec<&'static str> {
        self.lock().iter().copied().collect()
    }
}

impl Workers {
    /// A group whose workers end after `stop`.
    #[must_use]
    pub fn new(stop: CancellationToken) -> Self {
        Self::with(stop, Names::default(), TIMING)
    }

    /// Another group, which ends after a `stop` of its own; [`Self::down`] of both tells of both.
    #[must_use]
    pub fn group(&self, stop: CancellationToken) -> Self {
        Self::with(stop, self.down.clone(), self.timing)
    }

    fn with(stop: CancellationToken, down: Names, timing: Timing) -> Self {
        Self {
            stop,
            abort: CancellationToken::new(),
            tracker: TaskTracker::new(),
            running: Names::default(),
            down,
            timing,
        }
    }

    /// Runs what `worker` makes until the stop signal, which it is handed and after which it ends by itself.
    /// If it panics, or returns before, it is made and run again after a pause of one second, which doubles
    /// up to a minute.
    ///
    /// `name` is unique among a service's workers, and a value of the metric `usher.worker.restarts`.
    pub fn spawn<W>(
        &self,
        name: &'static str,
        worker: impl FnMut(CancellationToken) -> W + Send + 'static,
    ) where
        W: Future<Output = ()> + Send + 'static,
    {
        self.running.lock().insert(name);
        let group = self.clone();
        self.tracker.spawn(async move {
            tokio::select! {
                biased;
                () = group.abort.cancelled() => {}
                () = group.supervise(name, worker) => {
                    group.running.lock().remove(name);
                }
            }
        });
    }

    /// Runs `work` to its end, once, in the current span: what a call begins and must not leave half done, although the
    /// call is dropped at its deadline. [`Self::finish`] waits for it too.
    pub fn spawn_once(&self, work: impl Future<Output = ()> + Send + 'static) {
        let abort = self.abort.clone();
        let until_aborted = async move {
            tokio::select! {
                biased;
                () = abort.cancelled() => {}
                () = work => {}
            }
        };
        self.tracker.spawn(until_aborted.in_current_span());
    }

    async fn supervise<W: Future<Output = ()>>(
        &self,
        name: &'static str,
        mut worker: impl FnMut(CancellationToken) -> W,
    ) {
        let mut backoff = Backoff::new(self.timing.first_pause, self.timing.longest_pause);
        loop {
            let started = Instant::now();
            let run = AssertUnwindSafe(async { worker(self.stop.clone()).await }).catch_unwind();
            // The payload of a panic may hold anything; the panic hook has told where it was.
            let has_panicked = self.watch(name, run).await.is_err();
            if self.stop.is_cancelled() {
                if has_panicked {
                    tracing::error!(worker = name, "a worker panicked while it was stopping");
                }
                return;
            }
            self.down.lock().insert(name);
            RESTARTS.add(1, &[KeyValue::new("worker", name)]);
            if started.elapsed() >= self.timing.steady {
                backoff.reset();
            }
            let pause = backoff.next_delay();
            tracing::error!(
                worker = name,
                panicked = has_panicked,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                "a worker ended before the stop signal; it is started again after the pause"
            );
            tokio::select! {
                () = sleep(pause) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Waits for a worker's end, and calls it up once it has run for long enough.
    async fn watch<T>(&self, name: &'static str, run: impl Future<Output = T>) -> T {
        tokio::pin!(run);
        if let Ok(end) = timeout(self.timing.steady, &mut run).await {
            return end;
        }
        if self.down.lock().remove(name) {
            tracing::info!(worker = name, "the worker is up again");
        }
        run.await
    }

    /// The workers that are down now, or were restarted only just: for readiness.
    #[must_use]
    pub fn down(&self) -> Vec<&'static str> {
        self.down.list()
    }

    /// Waits until all workers, and the work of [`Self::spawn_once`], have ended, for at most `limit`; drops what has
    /// not, and logs the names of workers. Call it after the stop signal.
    pub async fn finish(&self, limit: Duration) {
        self.tracker.close();
        if timeout(limit, self.tracker.wait()).await.is_ok() {
            return;
        }
        tracing::warn!(
            workers = ?self.running.list(),
            tasks = self.tracker.len(),
            "still running when the time for stopping was over"
        );
        self.abort.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// A group that is quick to restart, and its stop signal.
    fn workers() -> (Workers, CancellationToken) {
        let stop = CancellationToken::new();
        let timing = Timing {
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_millis(20),
            steady: Duration::from_millis(200),
        };
        (Workers::with(stop.clone(), Names::default(), timing), stop)
    }

    async fn until(what: &str, condition: impl Fn() -> bool) {
        let holds = async {
            while !condition() {
                sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LONG, holds).await.expect(what);
    }

    #[tokio::test]
    async fn a_worker_that_ends_is_restarted_and_shown_until_it_is_steady() {
        for panics in [false, true] {
            let (workers, stop) = workers();
            let runs = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&runs);
            workers.spawn("fragile", move |stop| {
                let run = counter.fetch_add(1, Ordering::Relaxed);
                async move {
                    if run < 3 {
                        assert!(!panics, "on purpose");
                        return;
                    }
                    stop.cancelled().await;
                }
            });
            until("shown as down", || workers.down() == ["fragile"]).await;
            until("up again", || workers.down().is_empty()).await;
            assert_eq!(runs.load(Ordering::Relaxed), 4);
            stop.cancel();
            timeout(LONG, workers.finish(LONG * 2))
                .await
                .expect("ended");
        }
    }

    #[tokio::test]
    async fn a_worker_that_does_not_stop_is_dropped_after_the_limit() {
        let (workers, stop) = workers();
        let alive = Arc::new(());
        let held = Arc::clone(&alive);
        workers.spawn("stubborn", move |_| {
            let held = Arc::clone(&held);
            async move {
                std::future::pending::<()>().await;
                drop(held);
            }
        });
        stop.cancel();
        timeout(LONG, workers.finish(Duration::from_millis(10)))
            .await
            .expect("finish has a limit");
        until("dropped", || Arc::strong_count(&alive) == 1).await;
    }

    #[tokio::test]
    async fn work_that_is_done_once_is_waited_for_and_has_the_same_limit() {
        for takes_too_long in [false, true] {
            let (workers, stop) = workers();
            let (release, released) = tokio::sync::oneshot::channel::<()>();
            let done = Arc::new(AtomicUsize::new(0));
            let counter = Arc::clone(&done);
            workers.spawn_once(async move {
                released.await.expect("released");
                counter.fetch_add(1, Ordering::Relaxed);
            });
            stop.cancel();
            if takes_too_long {
                let limit = Duration::from_millis(10);
                timeout(LONG, workers.finish(limit))
                    .await
                    .expect("finish has a limit");
                until("dropped", || release.is_closed()).await;
            } else {
                let finish = timeout(LONG, workers.finish(LONG * 2));
                let release = async { release.send(()).expect("still running after the stop") };
                let (finished, ()) = tokio::join!(finish, release);
                finished.expect("ended");
                assert_eq!(done.load(Ordering::Relaxed), 1);
            }
        }
    }

    #[tokio::test]
    async fn groups_stop_apart_and_show_together() {
        let (first, first_stop) = workers();
        let second_stop = CancellationToken::new();
        let second = first.group(second_stop.clone());
        let stop = second_stop.clone();
        second.spawn("brief", |_| async {});
        until("shown", || first.down() == ["brief"]).await;
        first_stop.cancel();
        timeout(LONG, first.finish(LONG * 2)).await.expect("ended");
        assert!(!stop.is_cancelled());
        second_stop.cancel();
        timeout(LONG, second.finish(LONG * 2)).await.expect("ended");
    }
}
