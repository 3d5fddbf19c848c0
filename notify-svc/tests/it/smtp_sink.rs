//! A server that others wrote: smtp-sink, of Debian's package postfix.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use notify_svc::{
    domain::Stage,
    mail::{MailConnection as _, MailTransport as _, SendError},
    smtp::SmtpTransport,
};
use rstest::rstest;
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::{
    support::eventually,
    transports::{mail, settings},
};

/// A running server. It ends with this.
struct Sink {
    address: String,
    process: Child,
    emails: TempDir,
}

impl Sink {
    async fn start(options: &[&str]) -> Self {
        let emails = tempfile::tempdir().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        // As root it wants to become somebody else.
        let is_root = fs::metadata(emails.path()).unwrap().uid() == 0;
        let user = ["-u", "nobody"].into_iter().filter(|_| is_root);
        fs::set_permissions(emails.path(), Permissions::from_mode(0o777)).unwrap();
        let process = Command::new("smtp-sink")
            .args(options)
            .args(user)
            .args(["-d", "email", &address, "100"])
            .current_dir(emails.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("smtp-sink: `make test` installs it");
        let sink = Self {
            address,
            process,
            emails,
        };
        eventually("smtp-sink listens", async || {
            TcpStream::connect(&sink.address).await.is_ok()
        })
        .await;
        sink
    }

    fn transport(&self) -> SmtpTransport {
        let mut settings = settings(&format!("smtp+plaintext://{}", self.address));
        // Four times that is how long a relay that does not read is waited for.
        settings.timeouts.command = Duration::from_secs(1);
        SmtpTransport::new(settings).unwrap()
    }

    /// What it wrote down of the emails that it accepted.
    fn emails(&self) -> Vec<String> {
        let files = fs::read_dir(self.emails.path()).unwrap();
        files
            .map(|file| String::from_utf8(fs::read(file.unwrap().path()).unwrap()).unwrap())
            .collect()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[rstest]
#[case::all(&[])]
#[case::without_pipelining(&["-p"])]
#[case::without_8bitmime(&["-8"])]
#[case::without_esmtp(&["-e"])]
#[tokio::test]
async fn emails_arrive_whatever_is_offered(#[case] options: &[&str]) {
    let sink = Sink::start(options).await;
    let transport = sink.transport();
    let text = ".\r\n.leading dots\r\n..";
    for index in 0..5 {
        let mail = mail(&format!("client{index}@example.org"), "Zoë", text);
        let connection = transport.connect().await.unwrap();
        assert_eq!(connection.send(&mail).await.unwrap().code, 250);
    }
    let emails = sink.emails();
    assert_eq!(emails.len(), 5);
    for index in 0..5 {
        let recipient = format!("X-Rcpt-Args: <client{index}@example.org>");
        let email = emails.iter().find(|email| email.contains(&recipient));
        let email = email.expect("each arrived");
        let parsed = mail_parser::MessageParser::default().parse(email).unwrap();
        let body = parsed.body_text(0).unwrap();
        assert_eq!(
            body.trim_end().replace("\r\n", "\n"),
            text.replace("\r\n", "\n")
        );
    }
}

#[rstest]
#[case::recipient(&["-r", "RCPT"], Stage::Recipient, "450 4.3.0")]
#[case::sender(&["-f", "MAIL"], Stage::Mail, "500 5.3.0")]
#[case::data(&["-f", "DATA"], Stage::Data, "500 5.3.0")]
#[case::content(&["-r", "."], Stage::Content, "450 4.3.0")]
#[case::within_the_content(&["-A", "0"], Stage::Content, "550")]
#[tokio::test]
async fn refusals_are_understood(
    #[case] options: &[&str],
    #[case] expected: Stage,
    #[case] status: &str,
) {
    let sink = Sink::start(options).await;
    let transport = sink.transport();
    let small = mail("zoe@example.org", "", "hello");
    // More than fits into the connection, whose other end does not read.
    let mut large = small.clone();
    large
        .raw
        .extend([&[b'x'; 998][..], b"\r\n"].concat().repeat(14_000));
    let mails = if options[0] == "-A" {
        [&large, &small]
    } else {
        // The second one over the connection of the first.
        [&small, &small]
    };
    for mail in mails {
        let refused = transport.connect().await.unwrap().send(mail).await;
        let Err(SendError::Refused { stage, reply }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((stage, reply.to_string()), (expected, status.to_owned()));
    }
}
