//! Accounts for each email: what was asked for, what the relay did, what the database says, what was published.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use uuid::Uuid;

use crate::{
    events::Change,
    relay::{Answer, Attempt},
    report::Report,
    system::System,
};

/// Longest that an outcome takes to be recorded while the database answers: longer than a lock is waited for.
const RECORDING: Duration = Duration::from_secs(4);

/// A process was killed.
pub struct Kill {
    /// Its name, which the relay saw.
    pub process: &'static str,
    pub time: Instant,
}

/// What was done and seen.
pub struct Run {
    /// Of the emails that were asked for.
    pub invitations: Vec<Uuid>,
    pub attempts: Vec<Attempt>,
    pub changes: Vec<Change>,
    pub kills: Vec<Kill>,
    /// When the database was silent.
    pub silence: (Instant, Instant),
    /// The limit of a recipient.
    pub most: usize,
    pub period: Duration,
    pub gap: Duration,
    /// From the final dot to the acceptance.
    pub relay_delay: Duration,
}

/// An email as the database has it.
#[derive(sqlx::FromRow)]
struct Row {
    delivery_id: Uuid,
    invitation_id: Option<Uuid>,
    recipient: String,
    mail_class: String,
    state: String,
    revision: i64,
    unknown_count: i32,
    smtp_status: Option<String>,
    reason: Option<String>,
}

impl Row {
    fn message_id(&self) -> String {
        format!("{}@usher.example", self.delivery_id)
    }

    /// For a line of the report.
    fn text(&self) -> String {
        let Self {
            delivery_id,
            state,
            unknown_count,
            smtp_status,
            reason,
            ..
        } = self;
        let status = smtp_status.as_deref().unwrap_or("-");
        let reason = reason.as_deref().unwrap_or("-");
        format!("{delivery_id} {state}, lost {unknown_count}, {status}: {reason}")
    }

    fn is_refused(&self) -> bool {
        let is_permanent = |status: &String| status.starts_with('5');
        self.state == "FAILED"
            && self.smtp_status.as_ref().is_some_and(is_permanent)
            && self.reason.as_deref() == Some("the relay refused the email")
    }

    /// Given up, because its answer was lost twice.
    fn is_lost(&self) -> bool {
        let says_so = |reason: &String| reason.starts_with("the relay's answer was lost");
        self.state == "FAILED" && self.reason.as_ref().is_some_and(says_so)
    }
}

/// Acceptances by Message-ID, in their order.
type Accepted<'a> = HashMap<&'a str, Vec<&'a Attempt>>;

/// Checks all rules.
pub async fn reconcile(system: &System, run: &Run, report: &mut Report) -> anyhow::Result<()> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT delivery_id, invitation_id, recipient, mail_class, state, revision, unknown_count, smtp_status, reason
        FROM deliveries",
    )
    .fetch_all(&system.admin)
    .await?;
    let mut accepted = Accepted::new();
    for attempt in run.attempts.iter().filter(|it| it.answer.accepts()) {
        let message_id = attempt.message_id.as_deref().unwrap_or_default();
        accepted.entry(message_id).or_default().push(attempt);
    }
    attempts(run, report);
    rows_of_emails(run, &rows, report);
    for table in ["delivery_queue", "outbox"] {
        let left = system.count(table).await?;
        report.rule(&format!("rows in {table}"), left, "0", left == 0);
    }
    states(run, &rows, &accepted, report);
    doubles(run, &rows, &accepted, report);
    windows(run, &rows, &accepted, report);
    events(run, &rows, report);
    Ok(())
}

fn attempts(run: &Run, report: &mut Report) {
    report.note("processes killed", run.kills.len());
    for (answer, what) in [
        (Answer::Accepted, "accepted"),
        (
            Answer::AcceptedSilently,
            "accepted, and the answer withheld",
        ),
        (Answer::RefusedForNow, "refused with 4yz"),
        (Answer::Refused, "refused with 5yz"),
        (Answer::Nothing, "not answered, and forgotten"),
    ] {
        let count = run.attempts.iter().filter(|it| it.answer == answer).count();
        report.note(&format!("the relay: {what}"), count);
    }
}

fn rows_of_emails(run: &Run, rows: &[Row], report: &mut Report) {
    let asked: HashSet<_> = run.invitations.iter().copied().collect();
    let found: HashSet<_> = rows.iter().filter_map(|row| row.invitation_id).collect();
    let holds = rows.len() == asked.len() && asked == found;
    let rule = format!("one for each of {}", asked.len());
    report.rule("rows of emails", rows.len(), &rule, holds);
}

/// Each email is accepted, or refused, or given up as the policy says.
fn states(run: &Run, rows: &[Row], accepted: &Accepted<'_>, report: &mut Report) {
    let mut states = BTreeMap::<_, usize>::new();
    for row in rows {
        *states.entry(&row.state).or_default() += 1;
    }
    for (state, count) in &states {
        report.note(&format!("emails that are {state}"), count);
    }
    let is_accepted = |row: &Row| accepted.contains_key(row.message_id().as_str());
    let texts = |condition: &dyn Fn(&Row) -> bool| -> Vec<String> {
        let rows = rows.iter().filter(|row| condition(row));
        rows.map(Row::text).collect()
    };
    let lost = texts(&|row| row.state == "SENT" && !is_accepted(row));
    report.none("SENT, and the relay has no such email", &lost);
    let other = texts(&|row| row.state != "SENT" && !row.is_refused() && !row.is_lost());
    report.none("neither SENT, nor refused, nor lost twice", &other);
    let unsaid = texts(&|row| is_accepted(row) && row.state != "SENT" && row.unknown_count == 0);
    report.none("accepted, not SENT, and no answer was lost", &unsaid);

    let mut refusals = HashMap::<_, usize>::new();
    for attempt in &run.attempts {
        if attempt.answer == Answer::Refused {
            *refusals
                .entry(attempt.recipient.to_ascii_lowercase())
                .or_default() += 1;
        }
    }
    let answered: usize = refusals.values().sum();
    let mut unrefused = Vec::new();
    for row in rows.iter().filter(|row| row.is_refused()) {
        match refusals.get_mut(&row.recipient.to_ascii_lowercase()) {
            Some(left @ 1..) => *left -= 1,
            _ => unrefused.push(row.text()),
        }
    }
    report.none("FAILED as refused, and never answered 5yz", &unrefused);
    let left: usize = refusals.values().sum();
    report.note(
        &format!("of {answered} answers 5yz, those that were lost themselves"),
        left,
    );
    let ids: HashSet<_> = rows.iter().map(Row::message_id).collect();
    let unknown = accepted.keys().filter(|id| !ids.contains(**id));
    let unknown: Vec<_> = unknown.map(|id| (*id).to_owned()).collect();
    report.none("accepted Message-IDs of no row", &unknown);

    let twice: Vec<_> = rows.iter().filter(|row| row.is_lost()).collect();
    let arrived = twice.iter().filter(|row| is_accepted(row)).count();
    report.note("FAILED, for the answer was lost twice", twice.len());
    report.note("  of these accepted all the same", arrived);
    let once = rows.iter().filter(|row| row.unknown_count > 0).count();
    report.note("emails of which an answer was lost", once);
}

/// Nothing is accepted twice unless the first answer was lost past the final dot.
fn doubles(run: &Run, rows: &[Row], accepted: &Accepted<'_>, report: &mut Report) {
    let times = |row: &Row| accepted.get(row.message_id().as_str()).map_or(0, Vec::len);
    let unsaid = rows
        .iter()
        .filter(|row| times(row) > 1 && row.unknown_count == 0);
    let unsaid: Vec<_> = unsaid.map(Row::text).collect();
    report.none("accepted twice, and none was noted as lost", &unsaid);
    let mut excuses = BTreeMap::<_, usize>::new();
    let mut inexcusable = Vec::new();
    for (message_id, acceptances) in accepted.iter().filter(|(_, times)| times.len() > 1) {
        for earlier in &acceptances[..acceptances.len() - 1] {
            match excuse(run, earlier) {
                Some(excuse) => *excuses.entry(excuse).or_default() += 1,
                None => inexcusable.push(inexcusable_text(run, message_id, acceptances)),
            }
        }
    }
    for (excuse, count) in &excuses {
        report.note(&format!("accepted twice: {excuse}"), count);
    }
    report.none("accepted twice, and no answer was lost", &inexcusable);
    let most = accepted.values().map(Vec::len).max().unwrap_or(0);
    report.rule("most acceptances of an email", most, "at most 2", most <= 2);
}

/// What happened around acceptances, in seconds since the database fell silent.
fn inexcusable_text(run: &Run, message_id: &str, acceptances: &[&Attempt]) -> String {
    let seconds = |time: Instant| match time.checked_duration_since(run.silence.0) {
        Some(after) => after.as_secs_f64(),
        None => -(run.silence.0 - time).as_secs_f64(),
    };
    let accepted = acceptances.iter().map(|it| {
        let killed = run.kills.iter().filter(|kill| kill.process == it.process);
        let killed = killed.map(|kill| kill.time).find(|kill| *kill > it.time);
        let killed = killed.map_or(f64::NAN, seconds);
        let (process, at) = (&it.process, seconds(it.time));
        format!("{process} at {at:.2} (killed at {killed:.2})")
    });
    format!("{message_id}: {}", accepted.collect::<Vec<_>>().join(", "))
}

/// Why the outcome of an acceptance is not known.
fn excuse(run: &Run, attempt: &Attempt) -> Option<&'static str> {
    let time = attempt.time;
    let unheard = attempt.unheard;
    let unheard = unheard.is_some_and(|ended| ended <= time + RECORDING);
    let killed = run.kills.iter().any(|kill| {
        kill.process == attempt.process
            && kill.time + run.relay_delay * 2 >= time
            && kill.time <= time + RECORDING
    });
    let (start, end) = run.silence;
    if attempt.answer == Answer::AcceptedSilently {
        Some("the relay did not answer")
    } else if killed {
        Some("the process was killed before it was recorded")
    } else if time + RECORDING >= start && time <= end {
        Some("it could not be recorded, as the database was silent")
    } else if unheard {
        Some("the connection ended before the answer was heard")
    } else {
        None
    }
}

/// No period holds more emails of a recipient than it may, and no two are nearer than the gap, at the relay.
fn windows(run: &Run, rows: &[Row], accepted: &Accepted<'_>, report: &mut Report) {
    let mut recipients = BTreeMap::<_, Vec<Instant>>::new();
    for row in rows {
        let is_security = row.mail_class == "SECURITY";
        let acceptances = accepted.get(row.message_id().as_str());
        recipients
            .entry((row.recipient.to_ascii_lowercase(), is_security))
            .or_default()
            .extend(acceptances.into_iter().flatten().map(|it| it.time));
    }
    let (mut exceeded, mut near, mut closest) = (Vec::new(), Vec::new(), Duration::MAX);
    let mut limited = 0;
    for ((recipient, is_security), times) in &mut recipients {
        times.sort_unstable();
        limited += usize::from(times.len() > run.most);
        for emails in times.windows(run.most + 1) {
            let period = emails[run.most] - emails[0];
            closest = closest.min(period);
            if period < run.period {
                exceeded.push(format!("{recipient}: {} in {period:?}", run.most + 1));
            }
        }
        // Security mail has no gap.
        for emails in times.windows(2).filter(|_| !*is_security) {
            let gap = emails[1] - emails[0];
            if gap < run.gap {
                near.push(format!("{recipient}: two in {gap:?}"));
            }
        }
    }
    report.note("recipients with more emails than a period holds", limited);
    let what = format!("periods with more than {} emails", run.most);
    report.none(&what, &exceeded);
    report.note("  the shortest time of one more", format!("{closest:.2?}"));
    report.none("emails within the gap of another", &near);
}

/// Each email has one final event, and revisions that count up without a hole.
fn events(run: &Run, rows: &[Row], report: &mut Report) {
    let mut seen = HashSet::new();
    let mut changes = HashMap::<&str, BTreeMap<u64, &Change>>::new();
    let mut twice = Vec::new();
    let mut last_seen = HashMap::<&str, u64>::new();
    let mut out_of_order = 0;
    for change in &run.changes {
        if !seen.insert(change.event_id) {
            continue;
        }
        let last = last_seen.entry(&change.delivery_id).or_default();
        out_of_order += usize::from(change.revision < *last);
        *last = change.revision.max(*last);
        let of_email = changes.entry(&change.delivery_id).or_default();
        if of_email.insert(change.revision, change).is_some() {
            twice.push(format!("{} {}", change.delivery_id, change.revision));
        }
    }
    report.note("events published", seen.len());
    report.note("  repetitions", run.changes.len() - seen.len());
    report.note("  overtaken by a later one", out_of_order);
    report.none("revisions published by two events", &twice);
    let (mut holes, mut finals) = (Vec::new(), Vec::new());
    for row in rows {
        let id = row.delivery_id.to_string();
        let of_email = changes.remove(id.as_str()).unwrap_or_default();
        let revisions: BTreeSet<_> = of_email.keys().copied().collect();
        if revisions != (1..=row.revision.unsigned_abs()).collect() {
            holes.push(format!("{id}: {revisions:?} of {}", row.revision));
        }
        let all_final = of_email.values().filter(|change| change.is_final());
        let last = of_email.values().next_back();
        let is_last = last
            .is_some_and(|last| last.is_final() && last.state.as_str_name().ends_with(&row.state));
        if all_final.count() != 1 || !is_last {
            let states: Vec<_> = of_email.values().map(|change| change.state).collect();
            finals.push(format!("{id}: {states:?}, and {}", row.state));
        }
    }
    report.none("emails with revisions that nobody was told of", &holes);
    report.none("emails without exactly one final event, the last", &finals);
}
