//! An SMTP server that refuses, stalls, and remembers what it did.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use usher_tests::random::Random;

/// How the relay treats emails, in percent.
#[derive(Clone, Copy, Default)]
pub struct Behaviour {
    /// Time that each email takes before it is answered.
    pub delay: Duration,
    /// Answered 4yz.
    pub refused_for_now: f64,
    /// Answered 5yz.
    pub refused: f64,
    /// Not answered at all: a third before the content, a third after it, and a third of them accepted.
    pub stalled: f64,
}

/// What the relay did with an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Accepted, and said so.
    Accepted,
    /// Accepted, and said nothing.
    AcceptedSilently,
    /// Refused with 4yz.
    RefusedForNow,
    /// Refused with 5yz.
    Refused,
    /// Said nothing, and forgot it.
    Nothing,
}

impl Answer {
    pub fn accepts(self) -> bool {
        matches!(self, Self::Accepted | Self::AcceptedSilently)
    }
}

/// An email that somebody tried to hand over.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// The name that the process gave itself in EHLO.
    pub process: String,
    pub recipient: String,
    /// Without brackets; none if it was answered before its content.
    pub message_id: Option<String>,
    /// Just before the answer.
    pub time: Instant,
    pub answer: Answer,
    /// When the connection ended, if nothing more was said on it: whether the answer was heard, nobody knows.
    pub unheard: Option<Instant>,
}

type Attempts = Arc<Mutex<Vec<Attempt>>>;

/// The relay. It ends with the program.
pub struct Relay {
    pub url: String,
    attempts: Attempts,
}

impl Relay {
    pub async fn start(behaviour: Behaviour) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("smtp+plaintext://{}", listener.local_addr()?);
        let attempts = Attempts::default();
        let random = Arc::new(Mutex::new(Random::new(7)));
        let all = Arc::clone(&attempts);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let conversation = Conversation {
                    stream: BufReader::new(stream),
                    behaviour,
                    random: Arc::clone(&random),
                    attempts: Arc::clone(&all),
                    process: String::new(),
                    answered: None,
                };
                // An error means that the process has gone, or is killed.
                tokio::spawn(async move { drop(conversation.run().await) });
            }
        });
        Ok(Self { url, attempts })
    }

    /// All that was tried so far.
    pub fn attempts(&self) -> Vec<Attempt> {
        lock(&self.attempts).clone()
    }

    /// How many emails were accepted so far.
    pub fn accepted(&self) -> usize {
        let attempts = lock(&self.attempts);
        attempts.iter().filter(|it| it.answer.accepts()).count()
    }

    /// When the first email to `recipient` was accepted that came after the first `skip` attempts.
    pub fn accepted_for(&self, recipient: &str, skip: usize) -> Option<Instant> {
        let attempts = lock(&self.attempts);
        let mut of_recipient = attempts[skip..].iter();
        of_recipient
            .find(|it| it.answer.accepts() && it.recipient == recipient)
            .map(|it| it.time)
    }

    /// How many attempts there were so far.
    pub fn count(&self) -> usize {
        lock(&self.attempts).len()
    }
}

/// What is done with an email, and when it is decided.
#[derive(Clone, Copy)]
struct Plan {
    answer: Answer,
    before_content: bool,
}

struct Conversation {
    stream: BufReader<TcpStream>,
    behaviour: Behaviour,
    random: Arc<Mutex<Random>>,
    attempts: Attempts,
    process: String,
    /// Where the last thing that was said is the answer to an attempt: which one.
    answered: Option<usize>,
}

impl Drop for Conversation {
    fn drop(&mut self) {
        if let Some(attempt) = self.answered {
            lock(&self.attempts)[attempt].unheard = Some(Instant::now());
        }
    }
}

impl Conversation {
    async fn run(mut self) -> std::io::Result<()> {
        self.stream.get_ref().set_nodelay(true)?;
        self.say("220 relay.example").await?;
        let mut recipient = None;
        let mut plan = self.plan();
        while let Some(line) = self.line().await? {
            let (verb, rest) = line.split_once(' ').unwrap_or((&line, ""));
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => {
                    rest.clone_into(&mut self.process);
                    self.say("250-relay.example\r\n250-PIPELINING\r\n250 ENHANCEDSTATUSCODES")
                        .await?;
                }
                "RCPT" => {
                    let address = rest.trim_start_matches("TO:<");
                    let address = address.split('>').next().unwrap_or_default().to_owned();
                    plan = self.plan();
                    if plan.before_content {
                        self.answer(plan.answer, &address, None).await?;
                    } else {
                        recipient = Some(address);
                        self.say("250 2.1.5 ok").await?;
                    }
                }
                "DATA" => match recipient.take() {
                    Some(recipient) => {
                        self.say("354 go on").await?;
                        let Some(message_id) = self.content().await? else {
                            return Ok(());
                        };
                        tokio::time::sleep(self.behaviour.delay).await;
                        self.answer(plan.answer, &recipient, Some(message_id))
                            .await?;
                    }
                    None => self.say("554 5.5.1 no valid recipients").await?,
                },
                "QUIT" => return self.say("221 2.0.0 bye").await,
                _ => self.say("250 2.0.0 ok").await?,
            }
        }
        Ok(())
    }

    fn plan(&self) -> Plan {
        let mut random = lock(&self.random);
        let Behaviour {
            refused_for_now,
            refused,
            stalled,
            ..
        } = self.behaviour;
        let half = |random: &mut Random| random.happens(50.0);
        let (answer, before_content) = if random.happens(refused_for_now) {
            (Answer::RefusedForNow, half(&mut random))
        } else if random.happens(refused) {
            (Answer::Refused, half(&mut random))
        } else if random.happens(stalled) {
            *random.one_of(&[
                (Answer::Nothing, true),
                (Answer::Nothing, false),
                (Answer::AcceptedSilently, false),
            ])
        } else {
            (Answer::Accepted, false)
        };
        Plan {
            answer,
            before_content,
        }
    }

    /// Remembers the answer and gives it. If there is none, waits until the process gives up.
    async fn answer(
        &mut self,
        answer: Answer,
        recipient: &str,
        message_id: Option<String>,
    ) -> std::io::Result<()> {
        let is_envelope = message_id.is_none();
        let attempt = Attempt {
            process: self.process.clone(),
            recipient: recipient.to_owned(),
            message_id,
            time: Instant::now(),
            answer,
            unheard: None,
        };
        self.answered = Some({
            let mut attempts = lock(&self.attempts);
            attempts.push(attempt);
            attempts.len() - 1
        });
        match answer {
            Answer::Accepted => self.say("250 2.0.0 accepted").await,
            Answer::RefusedForNow if is_envelope => self.say("450 4.2.0 greylisted").await,
            Answer::RefusedForNow => self.say("451 4.3.0 try later").await,
            Answer::Refused if is_envelope => self.say("550 5.2.1 disabled").await,
            Answer::Refused => self.say("554 5.6.0 not like this").await,
            Answer::AcceptedSilently | Answer::Nothing => {
                let mut ignored = [0; 4096];
                while self.stream.read(&mut ignored).await? > 0 {}
                Ok(())
            }
        }
    }

    /// Reads the content to its final dot, and returns the Message-ID; `None` if the dot does not come.
    async fn content(&mut self) -> std::io::Result<Option<String>> {
        let mut message_id = String::new();
        while let Some(line) = self.line().await? {
            if line == "." {
                return Ok(Some(message_id));
            }
            if let Some(id) = line.strip_prefix("Message-ID: <") {
                id.trim_end_matches('>').clone_into(&mut message_id);
            }
        }
        Ok(None)
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line).await? == 0 {
            return Ok(None);
        }
        self.answered = None;
        Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
    }

    async fn say(&mut self, reply: &str) -> std::io::Result<()> {
        let reply = format!("{reply}\r\n");
        self.stream.write_all(reply.as_bytes()).await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
