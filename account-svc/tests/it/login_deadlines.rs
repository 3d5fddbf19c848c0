//! Logins whose call ends before they do: only wrong passwords count as attempts.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures::future::join_all;
use tonic::{Code, Request};
use usher_proto::account::v1::AuthenticateRequest;

use crate::support::{PASSWORD, Service, until, within};

/// More attempts than may fail.
const ATTEMPTS: usize = 12;

/// The code of Ann's login with the right password, whose caller waits for so long.
async fn login_within(service: &Service, organization_id: &str, patience: Duration) -> Code {
    let mut request = Request::new(AuthenticateRequest {
        organization_id: organization_id.to_owned(),
        email: "ann@example.org".to_owned(),
        password: PASSWORD.to_owned(),
        source: "192.0.2.7".to_owned(),
    });
    request.set_timeout(patience);
    match service.activation.clone().authenticate(request).await {
        Ok(_) => Code::Ok,
        Err(status) => status.code(),
    }
}

/// Whether the time of the call was over, as the service says, or the client if it was the first to notice.
fn is_late(code: Code) -> bool {
    matches!(code, Code::DeadlineExceeded | Code::Cancelled)
}

#[tokio::test]
async fn waiting_for_a_check_that_does_not_come_is_no_wrong_password() {
    let mut service = Service::start_with(&["--max-concurrent-hashes", "1"]).await;
    let organization = service.organization().await;
    service.activated(&organization).await;
    let other = service.organization().await;
    let is_busy = AtomicBool::new(true);
    let number = AtomicUsize::new(0);
    // Another organization fills its half of the queue: two thirds of a second or so.
    let busy = (0..32).map(|_| async {
        while is_busy.load(Ordering::Relaxed) {
            let number = number.fetch_add(1, Ordering::Relaxed);
            let request = AuthenticateRequest {
                organization_id: other.clone(),
                email: format!("client{number}@example.org"),
                password: "wrong".to_owned(),
                source: format!("client {number}"),
            };
            let _ = service.activation.clone().authenticate(request).await;
        }
    });
    let late = async {
        let mut in_a_row = 0;
        while in_a_row < ATTEMPTS {
            let code = login_within(&service, &organization, Duration::from_millis(200)).await;
            assert_ne!(code, Code::ResourceExhausted, "after {in_a_row} late ones");
            in_a_row = if is_late(code) { in_a_row + 1 } else { 0 };
        }
        is_busy.store(false, Ordering::Relaxed);
    };
    within(async { tokio::join!(join_all(busy), late) }).await;
    let code = login_within(&service, &organization, Duration::from_secs(10)).await;
    assert_eq!(code, Code::Ok);
}

#[tokio::test]
async fn a_login_that_cannot_be_recorded_is_no_wrong_password() {
    let mut service = Service::start().await;
    let organization = service.organization().await;
    service.activated(&organization).await;
    let mut admin = service.admin().await;
    sqlx::raw_sql("BEGIN; SELECT FROM accounts FOR UPDATE")
        .execute(&mut admin)
        .await
        .unwrap();
    let mut late = 0;
    for _ in 0..ATTEMPTS {
        let code = login_within(&service, &organization, Duration::from_millis(300)).await;
        late += usize::from(is_late(code));
    }
    assert!(late >= 8, "{late} were late");
    sqlx::raw_sql("COMMIT").execute(&mut admin).await.unwrap();
    until("none of them counts", async || {
        let code = login_within(&service, &organization, Duration::from_secs(10)).await;
        code == Code::Ok
    })
    .await;
}
