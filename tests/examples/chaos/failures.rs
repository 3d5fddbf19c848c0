//! Two processes, one of them killed again and again, over a network and a relay that fail.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::time::sleep;
use usher_proto::event::v1::MailClass;
use usher_tests::{
    Program,
    proxy::{Mode, Proxy},
    random::Random,
};

use crate::{
    events::Changes,
    mails::{Mail, organization},
    number,
    reconcile::{Kill, Run, reconcile},
    relay::{Behaviour, Relay},
    report::Report,
    system::{POLL, System},
};

/// The names of the processes, which the relay sees.
const PROCESSES: [&str; 2] = ["one.usher.example", "two.usher.example"];

/// Of a recipient, as settings: small, so that the run ends in minutes.
const MOST: usize = 3;
const PERIOD: Duration = Duration::from_secs(10);
const GAP: Duration = Duration::from_secs(1);

/// Emails that go to recipients who get several.
const SHARED_PERCENT: f64 = 5.0;
/// Among so many emails there is one such recipient, who so gets about five.
const EMAILS_FOR_SHARED: usize = 100;
/// Events that are published twice.
const REPEATED_PERCENT: f64 = 1.0;

const RELAY: Behaviour = Behaviour {
    delay: Duration::from_millis(50),
    refused_for_now: 5.0,
    refused: 1.0,
    stalled: 1.0,
};

/// Sends, kills, silences; then accounts for each email.
pub async fn run(report: &mut Report) -> anyhow::Result<()> {
    let emails = number("CHAOS_EMAILS", 20_000)?;
    let system = System::prepare().await?;
    let database = Proxy::in_front_of(&system.database_url()).await?;
    let relay = Relay::start(RELAY).await?;
    let mut processes = Processes::start(&system, &database, &relay).await?;
    let changes = Changes::receive(&system.bus);
    let started = Instant::now();
    let publishing = publish(&system, emails);
    let killing = processes.kill_one_after_the_other();
    let silence = silence(&database, &relay, emails / 3);
    let drained = async {
        let (invitations, silence) = futures::try_join!(publishing, silence)?;
        system
            .wait_for("all emails taken in", async || {
                Ok(system.count("deliveries").await? >= emails)
            })
            .await?;
        system
            .wait_for("an empty queue", async || {
                Ok(system.count("delivery_queue").await? == 0)
            })
            .await?;
        anyhow::Ok((invitations, silence))
    };
    let (invitations, silence) = tokio::select! {
        drained = drained => drained?,
        killed = killing => return killed,
    };
    let time = started.elapsed();
    system
        .wait_for("an empty outbox", async || {
            Ok(system.count("outbox").await? == 0)
        })
        .await?;
    wait_until_quiet(&changes).await;
    let (kills, errors) = processes.stop().await?;
    report.note("emails, time", format!("{emails}, {time:.0?}"));
    for (error, count) in errors {
        report.note(&format!("logged as an error: {error}"), count);
    }
    let run = Run {
        invitations,
        attempts: relay.attempts(),
        changes: changes.all(),
        kills,
        silence,
        most: MOST,
        period: PERIOD,
        gap: GAP,
        relay_delay: RELAY.delay,
    };
    reconcile(&system, &run, report).await?;
    system.remove().await
}

/// Publishes all emails, some twice; returns their invitations.
async fn publish(system: &System, emails: usize) -> anyhow::Result<Vec<uuid::Uuid>> {
    let mut random = Random::new(1);
    let shared = (emails / EMAILS_FOR_SHARED).max(1);
    let mut invitations = Vec::new();
    while invitations.len() < emails {
        let mut mails = Vec::new();
        for number in invitations.len()..emails.min(invitations.len() + 500) {
            let recipient = if random.happens(SHARED_PERCENT) {
                format!("Shared{}@mail.example", random.below(shared))
            } else {
                format!("client{number}@mail{}.example", number % 50)
            };
            let class = *random.weighted(&[
                (MailClass::Bulk, 6),
                (MailClass::Interactive, 3),
                (MailClass::Security, 1),
            ]);
            let organization = organization(*random.common(&[0, 1, 2, 3, 4]));
            let mail = Mail::new(&system.public_key, organization, class, &recipient)?;
            invitations.push(mail.invitation_id);
            mails.push(mail);
        }
        system.publish(&mails).await?;
        let again: Vec<_> = mails
            .into_iter()
            .filter(|_| random.happens(REPEATED_PERCENT))
            .collect();
        system.publish(&again).await?;
    }
    Ok(invitations)
}

/// Once the relay has accepted so many emails, swallows what goes to the database and comes from it: on connections that
/// were open for ever, on new ones until it ends. Returns when it began and ended.
async fn silence(
    database: &Proxy,
    relay: &Relay,
    emails: usize,
) -> anyhow::Result<(Instant, Instant)> {
    while relay.accepted() < emails {
        sleep(POLL).await;
    }
    let started = Instant::now();
    database.silence();
    database.set(Mode::Hold);
    sleep(Duration::from_secs(number("CHAOS_SILENCE_SECONDS", 60)?)).await;
    database.set(Mode::Forward);
    Ok((started, Instant::now()))
}

/// Waits until no change has come for two seconds.
async fn wait_until_quiet(changes: &Changes) {
    let mut before = usize::MAX;
    while changes.count() != before {
        before = changes.count();
        sleep(Duration::from_secs(2)).await;
    }
}

/// The processes under test.
struct Processes<'a> {
    system: &'a System,
    settings: Vec<(&'static str, String)>,
    running: [Option<Program>; 2],
    kills: Vec<Kill>,
    errors: BTreeMap<String, usize>,
}

impl<'a> Processes<'a> {
    async fn start(
        system: &'a System,
        database: &Proxy,
        relay: &Relay,
    ) -> anyhow::Result<Processes<'a>> {
        let limit = format!("{MOST}/{}s", PERIOD.as_secs());
        let settings = vec![
            ("DATABASE_URL", database.url().to_owned()),
            ("SMTP_URL", relay.url.clone()),
            ("RECIPIENT_LIMIT", limit.clone()),
            ("SECURITY_LIMIT", limit),
            ("RECIPIENT_GAP", format!("{}s", GAP.as_secs())),
            ("RETRY_BASE", "1s".to_owned()),
            ("RETRY_MAX", "5s".to_owned()),
            ("UNKNOWN_DELAY", "2s".to_owned()),
        ];
        let mut processes = Self {
            system,
            settings,
            running: [None, None],
            kills: Vec::new(),
            errors: BTreeMap::new(),
        };
        for number in 0..PROCESSES.len() {
            processes.start_one(number).await?;
        }
        Ok(processes)
    }

    async fn start_one(&mut self, number: usize) -> anyhow::Result<()> {
        let settings = self.settings.iter();
        let mut settings: Vec<_> = settings.map(|(name, value)| (*name, &**value)).collect();
        settings.push(("SMTP_EHLO_NAME", PROCESSES[number]));
        self.running[number] = Some(self.system.start(&settings).await?);
        Ok(())
    }

    /// Kills one, starts it again, and goes on with the other, without an end.
    async fn kill_one_after_the_other(&mut self) -> anyhow::Result<()> {
        let pause = Duration::from_secs(number("CHAOS_KILL_SECONDS", 3)?);
        for number in (0..PROCESSES.len()).cycle() {
            sleep(pause).await;
            if let Some(program) = self.running[number].take() {
                self.note_errors(&program);
                self.kills.push(Kill {
                    process: PROCESSES[number],
                    time: Instant::now(),
                });
                program.kill().await?;
            }
            self.start_one(number).await?;
        }
        Ok(())
    }

    /// Stops both. Returns the kills, and what was logged as an error, with how often.
    async fn stop(mut self) -> anyhow::Result<(Vec<Kill>, BTreeMap<String, usize>)> {
        for number in 0..PROCESSES.len() {
            if let Some(program) = self.running[number].take() {
                self.note_errors(&program);
                program.stop().await?;
            }
        }
        Ok((self.kills, self.errors))
    }

    fn note_errors(&mut self, program: &Program) {
        for line in program.log() {
            let line: Value = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if line["level"] == "ERROR" || line.is_string() {
                let message = line["message"].as_str().or_else(|| line.as_str());
                *self
                    .errors
                    .entry(message.unwrap_or_default().to_owned())
                    .or_default() += 1;
            }
        }
    }
}
