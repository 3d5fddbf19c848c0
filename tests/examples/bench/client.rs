//! Calls account-svc.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tonic::{Code, transport::Channel};
use usher_proto::account::v1::{
    Account, ActivateAccountRequest, AuthenticateRequest, CheckDuplicatesRequest,
    CreateAccountRequest, Date, GetAccountRequest, ListAccountsRequest,
    account_service_client::AccountServiceClient,
    activation_service_client::ActivationServiceClient,
};
use uuid::Uuid;

/// What every Person of the benchmark logs in with.
const PASSWORD: &str = "seven green otters row quietly";

/// The large organization of the example `fill`.
pub fn large_organization() -> String {
    "01900000-0000-7000-8000-000000000000".to_owned()
}

/// Whom duplicates are looked for.
pub struct Person {
    pub given: String,
    pub family: String,
    /// Year, month, day.
    pub birth_date: (i32, i32, i32),
}

/// An account that was created.
pub struct Created {
    pub account_id: String,
    pub email: String,
    pub time: Duration,
}

#[derive(Clone)]
pub struct Client {
    accounts: AccountServiceClient<Channel>,
    activation: ActivationServiceClient<Channel>,
    number: Arc<AtomicU64>,
}

impl Client {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        Ok(Self {
            accounts: AccountServiceClient::new(channel.clone()),
            activation: ActivationServiceClient::new(channel),
            number: Arc::default(),
        })
    }

    /// Asks for duplicates of somebody with an email that nobody has.
    pub async fn check_duplicates(
        &self,
        person: &Person,
        has_birth_date: bool,
    ) -> anyhow::Result<Duration> {
        let (year, month, day) = person.birth_date;
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let request = CheckDuplicatesRequest {
            organization_id: large_organization(),
            given_name: person.given.clone(),
            family_name: person.family.clone(),
            email: Some(format!("nobody{number}@mail.example")),
            birth_date: has_birth_date.then_some(Date { year, month, day }),
            ..Default::default()
        };
        let started = Instant::now();
        self.accounts.clone().check_duplicates(request).await?;
        Ok(started.elapsed())
    }

    pub async fn get(&self, account_id: &str) -> anyhow::Result<Duration> {
        let request = GetAccountRequest {
            organization_id: large_organization(),
            account_id: account_id.to_owned(),
        };
        let started = Instant::now();
        self.accounts.clone().get_account(request).await?;
        Ok(started.elapsed())
    }

    /// Reads one page of 50.
    pub async fn list(&self, page_token: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.page(&large_organization(), page_token, 50).await?;
        Ok(started.elapsed())
    }

    /// The token of the page after the first `count` accounts.
    pub async fn token_after(&self, organization_id: &str, count: usize) -> anyhow::Result<String> {
        const LARGEST: i32 = 500;
        let mut token = String::new();
        for _ in 0..count / LARGEST as usize {
            token = self.page(organization_id, &token, LARGEST).await?;
            anyhow::ensure!(!token.is_empty(), "the list ends before {count}");
        }
        Ok(token)
    }

    async fn page(
        &self,
        organization_id: &str,
        page_token: &str,
        page_size: i32,
    ) -> anyhow::Result<String> {
        let request = ListAccountsRequest {
            organization_id: organization_id.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        let answer = self.accounts.clone().list_accounts(request).await?;
        Ok(answer.into_inner().next_page_token)
    }

    /// Creates an account that invites at once.
    pub async fn create(&self) -> anyhow::Result<Created> {
        loop {
            let request = self.new_account();
            let account = request.account.as_ref();
            let email = account.and_then(|account| account.email.clone());
            let started = Instant::now();
            match self.accounts.clone().create_account(request).await {
                Ok(response) => {
                    let time = started.elapsed();
                    let account = response.into_inner().account.context("no account")?;
                    return Ok(Created {
                        account_id: account.account_id,
                        email: email.unwrap_or_default(),
                        time,
                    });
                }
                // The invented name sounds like another: try the next.
                Err(status) if status.code() == Code::FailedPrecondition => {}
                Err(status) => return Err(status).context("CreateAccount"),
            }
        }
    }

    /// Takes an account over.
    pub async fn activate(&self, token: String) -> anyhow::Result<Duration> {
        let request = ActivateAccountRequest {
            token,
            password: PASSWORD.to_owned(),
            request_id: Uuid::now_v7().to_string(),
            source: "192.0.2.1".to_owned(),
        };
        let started = Instant::now();
        self.activation.clone().activate_account(request).await?;
        Ok(started.elapsed())
    }

    /// Logs in whoever took over the account with this email.
    pub async fn authenticate(&self, email: &str) -> anyhow::Result<Duration> {
        let request = AuthenticateRequest {
            organization_id: large_organization(),
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            source: "192.0.2.1".to_owned(),
        };
        let started = Instant::now();
        self.activation.clone().authenticate(request).await?;
        Ok(started.elapsed())
    }

    /// Creates accounts with so many callers for so long; returns the time that each call took.
    pub async fn create_for(
        &self,
        callers: usize,
        time: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let client = self.clone();
        call_for(callers, time, move || {
            let client = client.clone();
            async move { Ok(client.create().await?.time) }
        })
        .await
    }

    fn new_account(&self) -> CreateAccountRequest {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let run = Uuid::now_v7();
        let account = Account {
            given_name: invented(run.as_u128() as u64),
            family_name: invented((run.as_u128() as u64).rotate_left(31)),
            email: Some(format!("bench{number}-{}@mail.example", run.simple())),
            ..Default::default()
        };
        CreateAccountRequest {
            organization_id: large_organization(),
            account: Some(account),
            request_id: Uuid::now_v7().to_string(),
            ..Default::default()
        }
    }
}

/// Calls with so many callers for so long, each one call after the other; returns the time that each call took.
pub async fn call_for<F: Future<Output = anyhow::Result<Duration>> + Send + 'static>(
    callers: usize,
    time: Duration,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + time;
    let callers: Vec<_> = (0..callers)
        .map(|_| {
            let call = call.clone();
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < end {
                    times.push(call().await?);
                }
                anyhow::Ok(times)
            })
        })
        .collect();
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await??);
    }
    Ok(all)
}

/// A name that hardly anybody has.
fn invented(mut seed: u64) -> String {
    let mut name = String::new();
    for _ in 0..5 {
        name.push(char::from(b"bcdfghjklmnprstvwz"[(seed % 18) as usize]));
        name.push(char::from(b"aeiou"[(seed / 18 % 5) as usize]));
        seed /= 90;
    }
    name
}
