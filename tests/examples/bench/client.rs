//! Calls account-svc.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tonic::{Code, transport::Channel};
use usher_proto::account::v1::{
    Account, CheckDuplicatesRequest, CreateAccountRequest, ListAccountsRequest,
    account_service_client::AccountServiceClient,
};
use uuid::Uuid;

/// The large organization of the example `fill`.
pub fn large_organization() -> String {
    "01900000-0000-7000-8000-000000000000".to_owned()
}

#[derive(Clone)]
pub struct Client {
    accounts: AccountServiceClient<Channel>,
    number: Arc<AtomicU64>,
}

impl Client {
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(url.to_owned())?.connect().await?;
        Ok(Self {
            accounts: AccountServiceClient::new(channel),
            number: Arc::default(),
        })
    }

    /// Asks for duplicates of a client whose name a few have, or many.
    pub async fn check_duplicates(
        &self,
        organization_id: &str,
        number: usize,
    ) -> anyhow::Result<Duration> {
        let given = ["María", "Anna", "John", "Søren", "Priya", "Wei"][number % 6];
        let family = [
            "García",
            "Nguyen",
            "Bacorden",
            "Müller",
            "Holingka",
            "Zanwickyor",
            "Smith",
        ][number % 7];
        let request = CheckDuplicatesRequest {
            organization_id: organization_id.to_owned(),
            given_name: given.to_owned(),
            family_name: family.to_owned(),
            email: Some(format!("client{}@mail.example", number * 331)),
            ..Default::default()
        };
        let started = Instant::now();
        self.accounts.clone().check_duplicates(request).await?;
        Ok(started.elapsed())
    }

    /// Reads one page of 50.
    pub async fn list(&self, page_token: &str) -> anyhow::Result<Duration> {
        let started = Instant::now();
        self.page(page_token, 50).await?;
        Ok(started.elapsed())
    }

    /// The token of the page after the first `count` accounts.
    pub async fn token_after(&self, count: usize) -> anyhow::Result<String> {
        const LARGEST: i32 = 500;
        let mut token = String::new();
        for _ in 0..count / LARGEST as usize {
            token = self.page(&token, LARGEST).await?;
            anyhow::ensure!(!token.is_empty(), "the list ends before {count}");
        }
        Ok(token)
    }

    async fn page(&self, page_token: &str, page_size: i32) -> anyhow::Result<String> {
        let request = ListAccountsRequest {
            organization_id: large_organization(),
            page_size,
            page_token: page_token.to_owned(),
            ..Default::default()
        };
        let answer = self.accounts.clone().list_accounts(request).await?;
        Ok(answer.into_inner().next_page_token)
    }

    /// Creates an account that invites at once.
    pub async fn create(&self) -> anyhow::Result<Duration> {
        loop {
            let request = self.new_account();
            let started = Instant::now();
            match self.accounts.clone().create_account(request).await {
                Ok(_) => return Ok(started.elapsed()),
                // The invented name sounds like another: try the next.
                Err(status) if status.code() == Code::FailedPrecondition => {}
                Err(status) => return Err(status).context("CreateAccount"),
            }
        }
    }

    /// Creates accounts with so many callers for so long; returns the time that each call took.
    pub async fn create_for(
        &self,
        callers: usize,
        time: Duration,
    ) -> anyhow::Result<Vec<Duration>> {
        let end = Instant::now() + time;
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let client = self.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        times.push(client.create().await?);
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
