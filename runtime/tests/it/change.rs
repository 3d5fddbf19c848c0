//! The unit of work of a mutation: all of it is committed, or nothing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::future::{join, join_all};
use secrecy::SecretString;
use sqlx::migrate::Migrator;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use tonic::Request;
use usher_proto::account::v1::{AuthenticateRequest, InspectTokenRequest, ReopenAccountRequest};
use usher_proto::event::v1::{AccountClosed, event::Payload};
use usher_proto::rpc::RpcRequest;
use usher_proto::topology::routing_key;
use usher_runtime::audit::AuditEntry;
use usher_runtime::call::Call;
use usher_runtime::caller::Caller;
use usher_runtime::change::{Change, Store};
use usher_runtime::database::{self, Scope};
use usher_runtime::error::CommonError;
use usher_runtime::outbox::OutboxEvent;
use usher_runtime::wake::Wake;
use usher_tests::{Database, ServiceName};
use uuid::Uuid;

use crate::support::soon;

/// Both services have the same tables, as a test of both says.
static MIGRATIONS: Migrator = sqlx::migrate!("../account-svc/migrations");

/// Any message will do.
type Response = AccountClosed;

fn response(text: &str) -> Response {
    Response {
        account_id: text.to_owned(),
    }
}

/// A call of somebody who may do everything.
fn open<R: RpcRequest>(message: R) -> Call {
    let mut request = Request::new(message);
    let caller = Caller::unrestricted("staff:7".to_owned());
    request.extensions_mut().insert(caller);
    let (call, fields, _) = Call::open(request).expect("open");
    fields.finish(()).expect("no faulty field");
    call
}

struct Fixture {
    _database: Database,
    store: Store,
    organization_id: Uuid,
}

impl Fixture {
    async fn new() -> Self {
        let database = Database::migrated(ServiceName::Account, &MIGRATIONS).await;
        let database = database.expect("database");
        let url = SecretString::from(database.service_url());
        let pool = database::connect(&url, "account_service", 6).expect("pool");
        Self {
            _database: database,
            store: Store::new(pool, Wake::default()),
            organization_id: Uuid::now_v7(),
        }
    }

    /// A call with a `request_id`, about `account_id`.
    fn call(&self, request_id: Uuid, account_id: &str) -> Call {
        open(ReopenAccountRequest {
            organization_id: self.organization_id.to_string(),
            account_id: account_id.to_owned(),
            request_id: request_id.to_string(),
        })
    }

    async fn change(
        &self,
        call: &Call,
        work: impl AsyncFnOnce(&mut Change) -> Result<Response, CommonError>,
    ) -> Result<Response, CommonError> {
        let response = self.store.change(call, work).await?;
        Ok(response.into_inner())
    }

    /// Rows of the outbox, the audit log and the stored responses.
    async fn counts(&self) -> [i64; 3] {
        let mut tx = database::begin(&self.store.pool, Scope::Platform)
            .await
            .expect("begin");
        let (events, entries, responses) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM outbox), (SELECT count(*) FROM audit_events),
                (SELECT count(*) FROM stored_responses)",
        )
        .fetch_one(&mut *tx)
        .await
        .expect("counts");
        [events, entries, responses]
    }
}

fn event(organization_id: Uuid) -> OutboxEvent {
    OutboxEvent::new(
        organization_id,
        routing_key::ACCOUNT_CLOSED,
        Payload::AccountClosed(AccountClosed::default()),
        OffsetDateTime::UNIX_EPOCH,
    )
}

fn entry() -> AuditEntry {
    AuditEntry::of_resource("account.closed", Uuid::now_v7())
}

#[tokio::test]
async fn a_change_is_committed_with_all_that_belongs_to_it() {
    let fixture = Fixture::new().await;
    let call = fixture.call(Uuid::now_v7(), "a");
    let changed = fixture.change(&call, async |change| {
        change.emit(event(change.organization_id));
        change.audit(entry().detail("reason", "moved"));
        Ok(response("first"))
    });
    assert_eq!(changed.await.expect("changed"), response("first"));
    assert_eq!(fixture.counts().await, [1, 1, 1]);
    let woken = tokio::time::timeout(Duration::from_secs(10), fixture.store.outbox.notified());
    woken.await.expect("the relay is woken");

    let mut tx = database::begin(&fixture.store.pool, Scope::Platform)
        .await
        .expect("begin");
    let (actor, action, reason): (String, String, String) =
        sqlx::query_as("SELECT actor, action, details ->> 'reason' FROM audit_events")
            .fetch_one(&mut *tx)
            .await
            .expect("entry");
    assert_eq!(
        (actor.as_str(), action.as_str(), reason.as_str()),
        ("staff:7", "account.closed", "moved")
    );
}

#[tokio::test]
async fn a_repeated_call_gets_the_first_response_and_changes_nothing() {
    let fixture = Fixture::new().await;
    let request_id = Uuid::now_v7();
    let call = fixture.call(request_id, "a");
    for text in ["first", "second"] {
        let answer = fixture.change(&call, async |change| {
            change.emit(event(change.organization_id));
            change.audit(entry());
            Ok(response(text))
        });
        assert_eq!(answer.await.expect("answer"), response("first"));
    }
    // Most work cannot be done twice.
    let failing = fixture.change(&call, async |_| Err(CommonError::ConcurrentUpdate));
    assert_eq!(failing.await.expect("answer"), response("first"));
    assert_eq!(fixture.counts().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_request_id_of_another_request_is_refused() {
    let fixture = Fixture::new().await;
    let request_id = Uuid::now_v7();
    let call = fixture.call(request_id, "a");
    let first = fixture.change(&call, async |change| {
        change.audit(entry());
        Ok(response("first"))
    });
    first.await.expect("changed");
    let other = fixture.call(request_id, "b");
    let refused =
        |result| matches!(result, Err(CommonError::RequestIdReused(id)) if id == request_id);
    let done = fixture.change(&other, async |change| {
        change.audit(entry());
        Ok(response("second"))
    });
    assert!(refused(done.await));
    let failed = fixture.change(&other, async |_| Err(CommonError::ConcurrentUpdate));
    assert!(refused(failed.await));
    assert_eq!(fixture.counts().await, [0, 1, 1]);
}

#[tokio::test]
async fn of_calls_with_one_request_id_at_a_moment_one_is_carried_out() {
    let fixture = Fixture::new().await;
    let call = fixture.call(Uuid::now_v7(), "a");
    let barrier = tokio::sync::Barrier::new(3);
    let calls = (0..3).map(|number: i32| {
        let (fixture, call, barrier) = (&fixture, &call, &barrier);
        async move {
            fixture
                .change(call, async |change| {
                    change.emit(event(change.organization_id));
                    change.audit(entry());
                    // All have done their work before one commits.
                    barrier.wait().await;
                    Ok(response(&number.to_string()))
                })
                .await
                .expect("answer")
        }
    });
    let answers = join_all(calls).await;
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    assert_eq!(fixture.counts().await, [1, 1, 1]);
}

#[tokio::test]
async fn a_change_without_an_entry_in_the_audit_log_fails() {
    let fixture = Fixture::new().await;
    let call = fixture.call(Uuid::now_v7(), "a");
    let silent = fixture.change(&call, async |change| {
        change.emit(event(change.organization_id));
        Ok(response("silent"))
    });
    assert!(matches!(silent.await, Err(CommonError::Internal(_))));
    assert_eq!(fixture.counts().await, [0, 0, 0]);
}

#[tokio::test]
async fn a_call_that_changes_nothing_leaves_its_response_alone() {
    let fixture = Fixture::new().await;
    let call = fixture.call(Uuid::now_v7(), "a");
    for leave in [
        |change: &mut Change| change.audit(entry()),
        |change: &mut Change| change.emit(event(change.organization_id)),
    ] {
        let contradiction = fixture.change(&call, async |change| {
            change.mark_unchanged();
            leave(change);
            Ok(response("contradiction"))
        });
        assert!(matches!(contradiction.await, Err(CommonError::Internal(_))));
    }
    assert_eq!(fixture.counts().await, [0, 0, 0]);
    let unchanged = fixture.change(&call, async |change| {
        change.mark_unchanged();
        Ok(response("unchanged"))
    });
    assert_eq!(unchanged.await.expect("unchanged"), response("unchanged"));
    assert_eq!(fixture.counts().await, [0, 0, 1]);
}

#[tokio::test]
async fn work_that_fails_leaves_nothing_and_can_be_repeated() {
    let fixture = Fixture::new().await;
    let call = fixture.call(Uuid::now_v7(), "a");
    let failed = fixture.change(&call, async |change| {
        change.emit(event(change.organization_id));
        change.audit(entry());
        Err(CommonError::ConcurrentUpdate)
    });
    assert!(matches!(failed.await, Err(CommonError::ConcurrentUpdate)));
    assert_eq!(fixture.counts().await, [0, 0, 0]);
    let repeated = fixture.change(&call, async |change| {
        change.audit(entry());
        Ok(response("second"))
    });
    assert_eq!(repeated.await.expect("changed"), response("second"));
}

#[tokio::test]
async fn a_request_with_a_secret_needs_a_verification_of_its_own() {
    let fixture = Fixture::new().await;
    let call = open(AuthenticateRequest {
        organization_id: fixture.organization_id.to_string(),
        password: "secret".to_owned(),
        ..Default::default()
    });
    let refused = fixture.change(&call, async |change| {
        change.audit(entry());
        Ok(response("given to anybody"))
    });
    assert!(matches!(refused.await, Err(CommonError::Internal(_))));
    assert_eq!(fixture.counts().await, [0, 0, 0]);

    let scope = Scope::Organization(fixture.organization_id);
    let changed: Result<_, CommonError> = fixture
        .store
        .change_in(&call, scope, fixture.organization_id, async |change| {
            change.audit(entry());
            Ok(response("verified"))
        })
        .await;
    let changed = changed.expect("changed").into_response();
    assert_eq!(changed, response("verified"));
}

#[tokio::test]
async fn a_call_without_an_organization_needs_a_scope_of_its_own() {
    let fixture = Fixture::new().await;
    // It names a token.
    let call = open(InspectTokenRequest::default());
    let refused = fixture.change(&call, async |_| panic!("it worked"));
    assert!(matches!(refused.await, Err(CommonError::Internal(_))));
}

/// Its calls wait for each other's locks, and those of others would wait with them.
#[tokio::test]
async fn one_organization_leaves_a_quarter_of_the_connections_to_others() {
    let fixture = Fixture::new().await;
    let one = Scope::Organization(fixture.organization_id);
    let other = Scope::Organization(Uuid::now_v7());
    let (release, inside) = (CancellationToken::new(), AtomicUsize::new(0));
    let long = || {
        fixture.store.read_in(one, async |_| {
            inside.fetch_add(1, Ordering::Relaxed);
            release.cancelled().await;
            Ok::<_, CommonError>(())
        })
    };
    let meanwhile = async {
        let four = async {
            while inside.load(Ordering::Relaxed) < 4 {
                tokio::task::yield_now().await;
            }
        };
        soon("four calls are under way", four).await;
        for _ in 0..10 {
            let short = fixture.store.read_in(other, async |tx| {
                sqlx::query("SELECT 1").execute(tx).await?;
                Ok::<_, CommonError>(())
            });
            short.await.expect("the others have connections");
        }
        // One more of the same organization is refused when it has waited for long enough.
        let late = Box::pin(long());
        // Also where it works on the whole platform.
        let platform = fixture
            .store
            .begin(Scope::Platform, fixture.organization_id);
        let (late, platform) = soon("answers", Box::pin(join(late, platform))).await;
        assert!(matches!(late, Err(CommonError::Overloaded)), "{late:?}");
        assert!(matches!(platform, Err(CommonError::Overloaded)));
        assert_eq!(inside.load(Ordering::Relaxed), 4);
        release.cancel();
    };
    let calls = tokio::join!(long(), long(), long(), long(), meanwhile);
    let all = calls.0.and(calls.1).and(calls.2).and(calls.3);
    all.expect("all were carried out");
    // Their connections are free again.
    for _ in 0..10 {
        long().await.expect("it is carried out");
    }
}

/// Each holds one of the places that all organizations share.
#[tokio::test]
async fn of_very_many_calls_that_would_wait_the_rest_is_refused_at_once() {
    let fixture = Fixture::new().await;
    let one = Scope::Organization(fixture.organization_id);
    let begin = || fixture.store.begin(one, fixture.organization_id);
    let mut places = Vec::new();
    for _ in 0..4 {
        places.push(begin().await.expect("a connection"));
    }
    let waiting = join_all((0..128).map(|_| begin()));
    let refused = async {
        // Those before it have been polled once.
        tokio::task::yield_now().await;
        let started = Instant::now();
        assert!(matches!(begin().await, Err(CommonError::Overloaded)));
        assert!(started.elapsed() < Duration::from_secs(1));
        places.clear();
    };
    let (waited, ()) = tokio::join!(
        async { waiting.await.into_iter().flatten().count() },
        refused
    );
    assert!(waited > 0);
}
