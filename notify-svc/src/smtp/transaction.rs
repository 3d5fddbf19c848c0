//! Hands one email over: MAIL, RCPT, DATA and the content (RFC 5321, section 3.3), as few times back and forth as the
//! relay allows (RFC 2920).

use std::{fmt::Write as _, mem, time::Duration};

use tokio::time::Instant;

use super::{
    connection::{Connection, State},
    content::Content,
    reply::ServerReply,
    wire::NoReply,
};
use crate::{
    domain::{Reply, Stage},
    mail::{OutgoingMail, SendError},
};

/// How long a reply is waited for when the content cannot be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A command of the envelope.
struct Step {
    /// What its answer is about; [`Stage::Connect`] for RSET.
    stage: Stage,
    /// With its line end.
    command: String,
}

impl Connection {
    /// Hands an email over, until `deadline`: no content leaves when the relay could not have
    /// [`super::SmtpTimeouts::data`] for its answer. After an error, or if this is given up midway, look at
    /// [`Connection::is_usable`].
    pub async fn send(
        &mut self,
        mail: &OutgoingMail,
        deadline: Instant,
    ) -> Result<Reply, SendError> {
        let content = Content::new(&mail.raw);
        let mail_command = self.mail_command(mail, content.size)?;
        let state = mem::replace(&mut self.state, State::Unusable);
        let was_used = mem::replace(&mut self.was_used, true);
        let reset = (state == State::NeedsReset).then(|| (Stage::Connect, "RSET\r\n".to_owned()));
        let rcpt_command = format!("RCPT TO:<{}>\r\n", mail.recipient);
        let steps: Vec<_> = reset
            .into_iter()
            .chain([
                (Stage::Mail, mail_command),
                (Stage::Recipient, rcpt_command),
                (Stage::Data, "DATA\r\n".to_owned()),
            ])
            .map(|(stage, command)| Step { stage, command })
            .collect();
        self.wire.deadline = deadline;
        let result = match self.envelope(&steps, was_used).await {
            Ok(()) => self.content(&content.bytes).await,
            Err(error) => Err(error),
        };
        self.used = Instant::now();
        result
    }

    /// MAIL with what the relay offers and the email needs.
    fn mail_command(&self, mail: &OutgoingMail, size: u64) -> Result<String, SendError> {
        let mut command = format!("MAIL FROM:<{}>", mail.sender);
        let offers = |keyword| self.extensions.offers(keyword);
        let addresses: [&str; 2] = [mail.sender.as_ref(), mail.recipient.as_ref()];
        let needs_utf8 = !addresses.iter().all(|address| address.is_ascii());
        if needs_utf8 && !offers("SMTPUTF8") {
            return Err(SendError::NeedsSmtpUtf8);
        }
        if let Some(limit) = self.extensions.size_limit()
            && size > limit
        {
            if limit < SMALLEST_LIMIT {
                let problem = format!("its limit (SIZE {limit}) is too small for any email");
                return Err(SendError::Relay(problem));
            }
            // What it would answer (RFC 1870, section 6.1).
            let reply = Reply::new(552, "5.3.4");
            let stage = Stage::Mail;
            return Err(SendError::Refused { stage, reply });
        }
        // Bodies are in ASCII. Of the headers, an address may not be: that of Reply-To is no reason to refuse the
        // email where nothing is offered for it.
        let is_ascii = mail.raw.is_ascii();
        if (needs_utf8 || !is_ascii) && offers("SMTPUTF8") {
            command.push_str(" SMTPUTF8");
        }
        if !is_ascii && offers("8BITMIME") {
            command.push_str(" BODY=8BITMIME");
        }
        if offers("SIZE") {
            let _ = write!(command, " SIZE={size}");
        }
        command.push_str("\r\n");
        Ok(command)
    }

    /// `Ok` if the relay waits for the content.
    async fn envelope(&mut self, steps: &[Step], was_used: bool) -> Result<(), SendError> {
        let (limit, pipelining) = (self.timeouts.command, self.extensions.offers("PIPELINING"));
        if pipelining {
            let commands: String = steps.iter().map(|step| step.command.as_str()).collect();
            let written = self.wire.write(&commands, limit).await;
            written.map_err(|error| lost(steps[0].stage, error, was_used))?;
        }
        for (index, step) in steps.iter().enumerate() {
            let answer = if pipelining {
                self.wire.reply(limit).await
            } else {
                self.wire.exchange(&step.command, limit).await
            };
            let judged = match answer {
                Ok(reply) => judge(step.stage, &reply, was_used),
                Err(error) => Err(lost(step.stage, error, was_used)),
            };
            // After 421 nothing more is answered.
            if let Err(SendError::Refused { reply, .. }) = &judged
                && reply.code != 421
            {
                let read = pipelining.then_some(&steps[index + 1..]);
                self.state = self.read_on(read.unwrap_or_default()).await;
            }
            judged?;
        }
        Ok(())
    }

    /// Reads the answers to what was sent along with a command that was refused. The state of the connection then.
    async fn read_on(&mut self, steps: &[Step]) -> State {
        let limit = self.timeouts.command;
        let mut has_recipient = false;
        for step in steps {
            let Ok(reply) = self.wire.reply(limit).await else {
                return State::Unusable;
            };
            if step.stage == Stage::Data && reply.code == 354 {
                // RFC 2920, section 3.1: DATA may be accepted all the same, and an empty email ends it. The relay has
                // nobody to deliver that to, or the connection is closed instead.
                if has_recipient {
                    return State::Unusable;
                }
                let ended = self.wire.exchange(".\r\n", limit).await;
                if !ended.is_ok_and(|reply| reply.accepts() || reply.refuses() && !reply.closes()) {
                    return State::Unusable;
                }
            } else if reply.closes() || !(reply.accepts() || reply.refuses()) {
                return State::Unusable;
            }
            has_recipient |= step.stage == Stage::Recipient && reply.accepts();
        }
        State::NeedsReset
    }

    async fn content(&mut self, bytes: &[u8]) -> Result<Reply, SendError> {
        // Later the relay would still be storing the email when this is given up, and somebody else sends it.
        let latest = self.wire.deadline.checked_sub(self.timeouts.data);
        let Some(latest) = latest.filter(|latest| *latest > Instant::now()) else {
            return Err(SendError::Interrupted);
        };
        if !self.wire.is_in_step() || self.wire.write_until(bytes, latest).await < bytes.len() {
            return Err(self.last_words().await);
        }
        let stage = Stage::Content;
        match self.wire.reply(self.timeouts.data).await {
            Ok(reply) if reply.accepts() => {
                self.sent += 1;
                self.state = State::Ready;
                Ok(reply.status())
            }
            Ok(reply) if reply.closes() => Err(SendError::Interrupted),
            Ok(reply) if reply.refuses() => {
                self.state = State::NeedsReset;
                let reply = reply.status();
                Err(SendError::Refused { stage, reply })
            }
            // Not understood: it may have been accepted.
            Ok(_) | Err(_) => Err(SendError::AnswerLost),
        }
    }

    /// Why the final dot did not leave, without which nothing is delivered (RFC 5321, section 4.1.1.4): the relay may
    /// have said why it takes no more.
    async fn last_words(&mut self) -> SendError {
        match self.wire.reply(LAST_WORDS).await {
            Ok(reply) if reply.closes() => SendError::Interrupted,
            Ok(reply) if reply.refuses() => SendError::Refused {
                stage: Stage::Content,
                reply: reply.status(),
            },
            Ok(_) => lost(Stage::Data, NoReply::NotAsked, true),
            Err(error) => lost(Stage::Data, error, true),
        }
    }
}

/// `Ok` if `reply` accepts the command.
fn judge(stage: Stage, reply: &ServerReply, was_used: bool) -> Result<(), SendError> {
    let accepted = match stage {
        Stage::Data => reply.code == 354,
        _ => reply.accepts(),
    };
    if accepted {
        return Ok(());
    }
    let refuses = reply.refuses();
    match stage {
        // The answer is no longer to this email, but to a connection that was kept for too long.
        Stage::Connect => Err(SendError::Stale),
        Stage::Mail if was_used && (reply.closes() || !refuses) => Err(SendError::Stale),
        // RFC 5321, section 3.8: it is shutting down. To MAIL on a new connection it says that it takes no email.
        _ if reply.closes() && stage != Stage::Mail => Err(SendError::Interrupted),
        _ if refuses => Err(SendError::Refused {
            stage,
            reply: reply.status(),
        }),
        // The relay takes emails of ours: it may say such a thing of this one alone.
        Stage::Recipient | Stage::Data => Err(SendError::Interrupted),
        _ => Err(SendError::Relay(format!(
            "{}: it answered {}",
            verb(stage),
            reply.code
        ))),
    }
}

/// A relay that takes no more bytes than this is set up wrongly: it is not the email that is too large.
const SMALLEST_LIMIT: u64 = 256 * 1024;

/// What it means that no reply came: before the content nothing is accepted.
fn lost(stage: Stage, error: NoReply, was_used: bool) -> SendError {
    match (stage, error) {
        (Stage::Connect | Stage::Mail, _) if was_used => SendError::Stale,
        (Stage::Recipient | Stage::Data, _) => SendError::Interrupted,
        _ => SendError::Relay(format!("{}: {error}", verb(stage))),
    }
}

fn verb(stage: Stage) -> &'static str {
    match stage {
        Stage::Connect => "RSET",
        Stage::Mail => "MAIL",
        Stage::Recipient => "RCPT",
        Stage::Data | Stage::Content => "DATA",
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
        net::TcpListener,
    };
    use uuid::Uuid;

    use super::{
        super::{SmtpSettings, SmtpTimeouts},
        *,
    };

    /// A relay that accepts everything; returns what it was sent by one client, line by line.
    async fn relay(listener: TcpListener) -> std::io::Result<Vec<String>> {
        let (stream, _) = listener.accept().await?;
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        let mut answer: &[u8] = b"220 hello\n";
        loop {
            stream.write_all(answer).await?;
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(lines);
            }
            answer = match line.trim_end() {
                "DATA" => b"354 go on\n",
                _ => b"250 ok\n",
            };
            lines.push(line);
        }
    }

    /// N21: somebody else would send it too.
    #[tokio::test]
    async fn no_content_leaves_when_there_is_no_time_left_for_its_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("smtp+plaintext://{}", listener.local_addr().unwrap());
        let relay = tokio::spawn(relay(listener));
        let limit = Duration::from_secs(20);
        let settings = SmtpSettings {
            url: url.parse().unwrap(),
            ehlo_name: "test.example".to_owned(),
            login: None,
            ca_file: None,
            max_connections: 1,
            max_mails_per_connection: 1,
            idle_timeout: limit,
            timeouts: SmtpTimeouts {
                connect: limit,
                command: limit,
                data: limit * 2,
            },
        };
        let mail = OutgoingMail {
            delivery_id: Uuid::nil(),
            sender: "a@example.org".parse().unwrap(),
            recipient: "b@example.org".parse().unwrap(),
            raw: Vec::new(),
        };
        let now = Instant::now();
        let mut connection = Connection::open(&settings, None, now + limit)
            .await
            .unwrap();
        let late = connection.send(&mail, now + settings.timeouts.data).await;
        assert_eq!(late, Err(SendError::Interrupted));
        assert!(!connection.is_usable());
        drop(connection);
        let lines = relay.await.unwrap().unwrap();
        assert_eq!(lines.last().map(String::as_str), Some("DATA\r\n"));
    }
}
