//! P11: `ActivateAccount` and `Authenticate` compared with argon2id alone, and what other calls notice of them.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;

use crate::{
    Settings,
    baseline::{self, Rate},
    client::{Client, call_for},
    mail::Inbox,
    median,
    processors::processors,
    report::Report,
    system::System,
};

/// Callers for each processor.
const CALLERS: usize = 8;
/// Between two calls of the kind whose time is watched meanwhile.
const PAUSE: Duration = Duration::from_millis(5);

/// One figure of a round.
type Figure = fn(&Round) -> f64;

struct Round {
    alone: f64,
    activations: f64,
    logins: f64,
    /// p99 of `GetAccount`, in milliseconds: with nothing else to do, during activations, during logins.
    others: [f64; 3],
}

pub async fn measure(
    system: &System,
    settings: &Settings,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut inbox = Inbox::start().await?;
    let account_svc = system.start_account_svc(&[]).await?;
    let notify_svc = system.start_notify_svc(&inbox.url, &[]).await?;
    system.wait_until_ready("notify-svc").await?;
    let client = Client::connect(&account_svc.grpc_url).await?;

    let alone = baseline::hashes(settings.time.min(Duration::from_secs(3)))?;
    let activations = alone * settings.time.as_secs_f64() * settings.rounds as f64;
    let (mut emails, mut tokens) = (Vec::new(), Vec::new());
    let mut account_id = String::new();
    for _ in 0..(activations * 1.2) as usize {
        let created = client.create().await?;
        account_id = created.account_id;
        emails.push(created.email);
        tokens.push(
            inbox
                .next()
                .await?
                .token
                .context("an email without a token")?,
        );
    }
    notify_svc.kill().await?;

    let tokens = Arc::new(Mutex::new(tokens));
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        let (_, idle) = beside(&client, &account_id, settings, 0, pause).await?;
        let alone = baseline::hashes(settings.time)?;
        let activate = {
            let (client, tokens) = (client.clone(), Arc::clone(&tokens));
            move || {
                let token = tokens.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let client = client.clone();
                async move { client.activate(token.context("too few emails")?).await }
            }
        };
        let callers = CALLERS * processors() as usize;
        let (activations, while_activating) =
            beside(&client, &account_id, settings, callers, activate).await?;
        // The accounts whose tokens were not used yet are the first ones.
        let left = tokens.lock().unwrap_or_else(PoisonError::into_inner).len();
        let active: Arc<[String]> = emails.get(left..).context("no accounts")?.into();
        let next = Arc::new(AtomicUsize::new(0));
        let log_in = {
            let client = client.clone();
            move || {
                let number = next.fetch_add(1, Ordering::Relaxed) % active.len();
                let (client, active) = (client.clone(), Arc::clone(&active));
                async move { client.authenticate(&active[number]).await }
            }
        };
        let (logins, while_logging_in) =
            beside(&client, &account_id, settings, callers, log_in).await?;
        rounds.push(Round {
            alone,
            activations: activations.per_second,
            logins: logins.per_second,
            others: [idle.p99, while_activating.p99, while_logging_in.p99],
        });
    }
    account_svc.kill().await?;
    tell(&rounds, report);
    Ok(())
}

fn tell(rounds: &[Round], report: &mut Report) {
    let of = |figure: &dyn Fn(&Round) -> f64| median(rounds.iter().map(figure));
    let alone = of(&|round| round.alone);
    let rates: [(&str, Figure); 2] = [
        ("ActivateAccount", |round| round.activations),
        ("Authenticate", |round| round.logins),
    ];
    for (index, (name, rate)) in rates.into_iter().enumerate() {
        let ratio = of(&|round| rate(round) / round.alone);
        let baseline = Some(("argon2id, all processors", alone, ratio));
        report.row("P11", name, of(&rate), "/s", baseline, "≥ 0.9");
        let ratio = of(&|round| round.others[index + 1] / round.others[0]);
        let baseline = Some(("idle", of(&|round| round.others[0]), ratio));
        let what = format!("GetAccount during {name}, p99");
        let p99 = of(&|round| round.others[index + 1]);
        report.row("P11", &what, p99, "ms", baseline, "≤ 2×");
    }
}

async fn pause() -> anyhow::Result<Duration> {
    anyhow::bail!("nobody calls")
}

/// Calls with so many callers, and `GetAccount` now and then meanwhile; the rates of both.
async fn beside<F: Future<Output = anyhow::Result<Duration>> + Send + 'static>(
    client: &Client,
    account_id: &str,
    settings: &Settings,
    callers: usize,
    call: impl Fn() -> F + Clone + Send + 'static,
) -> anyhow::Result<(Rate, Rate)> {
    let (client, account_id) = (client.clone(), account_id.to_owned());
    let other = move || {
        let (client, account_id) = (client.clone(), account_id.clone());
        async move {
            tokio::time::sleep(PAUSE).await;
            client.get(&account_id).await
        }
    };
    let (calls, others) = tokio::join!(
        call_for(callers, settings.time, call),
        call_for(1, settings.time, other)
    );
    Ok((
        Rate::new(calls?, settings.time),
        Rate::new(others?, settings.time),
    ))
}
