//! A whole service: what it shows of itself, and how it stops. Needs `DATABASE_URL`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use clap::Parser as _;
use sqlx::{ConnectOptions as _, PgPool, migrate::Migrator, postgres::PgConnectOptions};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use usher_runtime::{
    bus::EventBus,
    callers::Callers,
    config::{ServerArgs, TelemetryArgs},
    database::{Pools, Scope, begin},
    health::Problems,
    service::{Listeners, Service},
    telemetry,
    wake::Wake,
    workers::Workers,
};
use usher_tests::{
    Database, ServiceName, in_own_process,
    proxy::{Mode, Proxy},
};

use crate::support::{database, soon};

/// Both services have the same outbox, as a test of both says.
static MIGRATIONS: Migrator = sqlx::migrate!("../account-svc/migrations");

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    telemetry: TelemetryArgs,
}

struct Running {
    admin: SocketAddr,
    pools: Pools,
    problems: Problems,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn run(database_url: &str, spawn: impl FnOnce(&Workers)) -> Running {
    // A table that every database has.
    run_with_table(database_url, "pg_catalog.pg_class", spawn).await
}

async fn run_with_table(
    database_url: &str,
    table: &'static str,
    spawn: impl FnOnce(&Workers),
) -> Running {
    let pools = Pools::connect(&database_url.into(), ServiceName::Account.role(), 2, 2)
        .expect("DATABASE_URL");
    run_with_pools(pools, table, spawn).await
}

async fn run_with_pools(
    pools: Pools,
    table: &'static str,
    spawn: impl FnOnce(&Workers),
) -> Running {
    let stop = CancellationToken::new();
    let workers = Workers::new(stop.clone());
    spawn(&workers);
    let problems = Problems::default();
    let server =
        Cli::parse_from(["test", "--allow-unauthenticated", "--shutdown-timeout=1s"]).server;
    let service = Service {
        name: "test",
        pools: pools.clone(),
        table,
        bus: EventBus::in_process(),
        callers: Callers::from_args(&server.callers).expect("callers"),
        server,
        routes: Routes::default(),
        outbox: Wake::default(),
        problems: problems.clone(),
        workers,
    };
    let listen = async || TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let admin = listen().await;
    let address = admin.local_addr().expect("address");
    let listeners = Listeners {
        grpc: listen().await,
        admin: Some((admin, prometheus::Registry::new())),
    };
    let task = tokio::spawn(service.run_until_stopped(listeners, stop.clone()));
    Running {
        admin: address,
        pools,
        problems,
        stop,
        task,
    }
}

impl Running {
    /// The answer of `/readyz`, head and body; empty if nobody listens.
    async fn readyz(&self) -> String {
        let mut answer = String::new();
        if let Ok(mut connection) = TcpStream::connect(self.admin).await {
            let request = b"GET /readyz HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
            let _ = connection.write_all(request).await;
            let _ = connection.read_to_string(&mut answer).await;
        }
        answer
    }

    async fn until(&self, what: &str, condition: impl Fn(&str) -> bool) {
        soon(what, async {
            while !condition(&self.readyz().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    async fn until_ready(&self) {
        self.until("ready", |answer| answer.starts_with("HTTP/1.1 200"))
            .await;
    }

    async fn stop(self) {
        self.stop.cancel();
        soon("it stops", self.task)
            .await
            .expect("no panic")
            .expect("no error");
    }
}

async fn until_stopped(stop: CancellationToken) {
    stop.cancelled().await;
}

#[tokio::test]
async fn calls_that_use_up_their_connections_leave_the_service_ready() {
    let database = database().await;
    let service = run(&database.service_url(), |_| {}).await;
    service.until_ready().await;
    let mut busy = Vec::new();
    for _ in 0..2 {
        busy.push(
            begin(&service.pools.calls, Scope::Platform)
                .await
                .expect("begin"),
        );
    }
    // Longer than a check and its limit.
    let observed = Instant::now();
    while observed.elapsed() < Duration::from_secs(4) {
        let answer = service.readyz().await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nor do the workers wait for calls.
    drop(
        begin(&service.pools.workers, Scope::Platform)
            .await
            .expect("begin"),
    );
    drop(busy);
    service.stop().await;
}

#[tokio::test]
async fn a_silent_database_is_named_and_its_return_seen() {
    let database = database().await;
    let proxy = Proxy::in_front_of(&database.service_url()).await;
    let proxy = proxy.expect("proxy");
    let service = run(proxy.url(), |_| {}).await;
    service.until_ready().await;
    proxy.set(Mode::Hold);
    proxy.silence();
    service
        .until("not ready", |answer| {
            answer.starts_with("HTTP/1.1 503") && answer.contains("the database does not answer")
        })
        .await;
    proxy.set(Mode::Forward);
    service.until_ready().await;
    service.stop().await;
}

/// As after a failover, when the old primary is a standby.
#[tokio::test]
async fn a_database_that_accepts_no_writes_is_named() {
    let database = database().await;
    let options: PgConnectOptions = database.service_url().parse().expect("DATABASE_URL");
    let options = options.options([("default_transaction_read_only", "on")]);
    let pool = PgPool::connect_lazy_with(options);
    let pools = Pools {
        calls: pool.clone(),
        workers: pool,
    };
    let service = run_with_pools(pools, "pg_catalog.pg_class", |_| {}).await;
    service
        .until("not ready", |answer| {
            answer.starts_with("HTTP/1.1 503") && answer.contains("the database accepts no writes")
        })
        .await;
    service.stop().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_told() {
    let database = database().await;
    let options: PgConnectOptions = database.service_url().parse().expect("DATABASE_URL");
    let nobody = options.clone().username("nobody_at_all").to_url_lossy();
    let nowhere = options.database("not_there").to_url_lossy();
    let closed = "postgres://127.0.0.1:1/usher";
    for (url, expected) in [
        (nobody.as_str(), "nobody_at_all"),
        (
            nowhere.as_str(),
            "database \\\"not_there\\\" does not exist",
        ),
        (closed, "refused"),
    ] {
        let service = run(url, |_| {}).await;
        service
            .until(expected, |answer| {
                answer.starts_with("HTTP/1.1 503")
                    && answer.contains("DATABASE_URL: cannot connect: ")
                    && answer.contains(expected)
            })
            .await;
        service.stop().await;
    }
}

#[tokio::test]
async fn a_database_that_is_not_migrated_is_named() {
    let database = database().await;
    let service = run_with_table(&database.service_url(), "public.not_there", |_| {}).await;
    service
        .until("not ready", |answer| {
            answer.starts_with("HTTP/1.1 503")
                && answer.contains("the database is not migrated: run `test migrate`")
        })
        .await;
    service.stop().await;
}

#[tokio::test]
async fn a_worker_that_fails_is_named() {
    let database = database().await;
    let service = run(&database.service_url(), |workers| {
        workers.spawn("steady", until_stopped);
        workers.spawn("fragile", |_| async { panic!("on purpose") });
    })
    .await;
    service
        .until("named", |answer| {
            answer.starts_with("HTTP/1.1 200") && answer.contains("the worker `fragile` is down")
        })
        .await;
    assert!(!service.readyz().await.contains("steady"));
    service.stop().await;
}

#[tokio::test]
async fn a_stop_has_a_limit_and_is_shown_until_the_end() {
    let database = database().await;
    let service = run(&database.service_url(), |workers| {
        workers.spawn("stubborn", |_| std::future::pending());
    })
    .await;
    service.until_ready().await;
    // Never given back.
    let lost = begin(&service.pools.calls, Scope::Platform)
        .await
        .expect("begin");
    service.stop.cancel();
    let mut shown = String::new();
    soon("it stops", async {
        while !service.task.is_finished() {
            let answer = service.readyz().await;
            if !answer.is_empty() {
                shown = answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    assert!(shown.starts_with("HTTP/1.1 503"), "{shown}");
    assert!(shown.contains("the service is stopping"), "{shown}");
    drop(lost);
    service.stop().await;
}

#[tokio::test]
async fn the_age_of_the_oldest_event_in_the_outbox_is_measured() {
    // The meter belongs to the process, and other tests use it before it is set up.
    let name = "service::the_age_of_the_oldest_event_in_the_outbox_is_measured";
    if !in_own_process(name).await {
        return;
    }
    let args = Cli::parse_from(["test", "--allow-unauthenticated"]).telemetry;
    let telemetry = telemetry::init("test", &args).expect("the only one");
    let database = Database::migrated(ServiceName::Account, &MIGRATIONS).await;
    let database = database.expect("database");
    let mut admin = database.admin().await.expect("admin");
    // Put off for ever, as if the broker refused them.
    let events = "INSERT INTO outbox
            (event_id, organization_id, event_type, payload, retry_time, create_time)
        VALUES ('019a0000-0000-7000-8000-000000000002', gen_random_uuid(), 'test', '', 'infinity',
                now() - interval '100 s'),
            ('019a0000-0000-7000-8000-000000000001', gen_random_uuid(), 'test', '', 'infinity',
                now() - interval '200 s')";
    for (statement, expected) in [(events, 200.0..260.0), ("DELETE FROM outbox", 0.0..0.001)] {
        let done = sqlx::raw_sql(statement).execute(&mut admin).await;
        done.expect("done");
        // It measures when it starts.
        let service = run(&database.service_url(), |_| {}).await;
        soon("it is measured", async {
            loop {
                let metrics = prometheus::TextEncoder::new()
                    .encode_to_string(&telemetry.registry.gather())
                    .expect("metrics");
                let is_age = |line: &&str| line.starts_with("usher_outbox_age_seconds{");
                let age = metrics.lines().find(is_age);
                let seconds = age.and_then(|line| line.rsplit(' ').next()?.parse().ok());
                if seconds.is_some_and(|seconds: f64| expected.contains(&seconds)) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        service.stop().await;
    }
}

#[tokio::test]
async fn what_does_not_work_is_told_and_makes_nothing_unready() {
    let database = database().await;
    let running = run(&database.service_url(), |_| {}).await;
    running.until_ready().await;
    let problem = "the relay cannot be used";
    running.problems.set("relay", Some(problem.to_owned()));
    running
        .until("it is told", |answer| answer.contains(problem))
        .await;
    running.until_ready().await;
    running.problems.set("relay", None);
    running
        .until("it is over", |answer| !answer.contains(problem))
        .await;
    running.stop().await;
}
