//! What a relay offers is used, and nothing else.

use notify_svc::{
    domain::{Reply, Stage},
    mail::{MailConnection as _, MailTransport as _, SendError},
    smtp::SmtpTransport,
};
use rstest::rstest;

use crate::{
    dialogue::{send, transport},
    scripted_smtp::{At, Encryption, Fault, ScriptedSmtp},
    transports::{certificate, login, mail, settings},
};

#[tokio::test]
async fn the_envelope_goes_at_once_where_that_is_offered() {
    let (server, with) = transport(&["pipelining"]).await;
    send(&with, "zoe").await.unwrap();
    assert_eq!(server.pipelined(), 2, "MAIL and RCPT");
    let (server, without) = transport(&[]).await;
    send(&without, "zoe").await.unwrap();
    assert_eq!(server.pipelined(), 0);
}

#[rstest]
#[case("500 5.5.1 what?")]
#[case("502 unknown")]
#[tokio::test]
async fn a_relay_without_extensions_is_greeted_the_old_way(#[case] answer: &'static str) {
    let (server, transport) = transport(&["PIPELINING", "SIZE 1"]).await;
    server.fail_once(At::Ehlo, Fault::Reply(answer));
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.commands("HELO"), ["HELO test.example"]);
    assert_eq!(
        server.commands("MAIL"),
        ["MAIL FROM:<no-reply@mail.example>"]
    );
    assert_eq!(server.pipelined(), 0);
}

#[tokio::test]
async fn what_an_email_needs_is_declared_where_it_is_offered() {
    let unicode = mail("zo\u{e9}@example.org", "", "hello");
    let ascii = mail("zoe@example.org", "", "h\u{e9}llo");
    assert!(ascii.raw.is_ascii(), "encoded");
    let size = unicode.raw.len();
    let (server, all) = transport(&["8BITMIME", "SmtpUtf8", "SIZE 100000"]).await;
    for mail in [&unicode, &ascii] {
        all.connect().await.unwrap().send(mail).await.unwrap();
    }
    let declared = format!("MAIL FROM:<no-reply@mail.example> SMTPUTF8 BODY=8BITMIME SIZE={size}");
    let plain = format!("MAIL FROM:<no-reply@mail.example> SIZE={}", ascii.raw.len());
    assert_eq!(server.commands("MAIL"), [declared, plain]);
    assert_eq!(server.taken()[0].recipient, "zo\u{e9}@example.org");

    let (server, none) = transport(&["8BITMIME"]).await;
    let result = none.connect().await.unwrap().send(&unicode).await;
    assert_eq!(result, Err(SendError::NeedsSmtpUtf8));
    none.connect().await.unwrap().send(&ascii).await.unwrap();
    assert_eq!(
        server.connections(),
        1,
        "nothing was sent, so it is in step"
    );
}

#[tokio::test]
async fn an_email_that_is_too_large_is_not_sent() {
    let text = "hello\r\n".repeat(40_000);
    let large = mail("zoe@example.org", "", &text);
    let (server, transport) = transport(&[&format!("SIZE {}", large.raw.len())]).await;
    transport
        .connect()
        .await
        .unwrap()
        .send(&large)
        .await
        .unwrap();
    let larger = mail("zoe@example.org", "", &format!("!{text}"));
    let result = transport.connect().await.unwrap().send(&larger).await;
    let expected = SendError::Refused {
        stage: Stage::Mail,
        reply: Reply::new(552, "5.3.4"),
    };
    assert_eq!(result, Err(expected));
    assert_eq!(server.commands("MAIL").len(), 1);
}

/// It is the relay that is set up wrongly.
#[tokio::test]
async fn a_relay_that_takes_no_email_of_any_size_cannot_be_used() {
    let (server, transport) = transport(&["SIZE 1"]).await;
    let result = send(&transport, "zoe").await;
    assert!(matches!(result, Err(SendError::Relay(_))), "{result:?}");
    assert_eq!(server.commands("MAIL").len(), 0);
}

/// RFC 4954, section 4: both ways.
#[rstest]
#[case("AUTH PLAIN LOGIN", "AUTH PLAIN AHVzaGVyAHNlY3JldA==")]
#[case("AUTH=LOGIN", "AUTH LOGIN dXNoZXI= c2VjcmV0")]
#[tokio::test]
async fn the_login_is_one_that_is_offered(#[case] offered: &str, #[case] expected: &str) {
    let server = ScriptedSmtp::start().await;
    server.offer(&[offered]);
    let mut settings = settings(&server.url());
    settings.login = Some(login(true));
    let transport = SmtpTransport::new(settings).unwrap();
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.logins(), [expected]);
    server.offer(&["AUTH CRAM-MD5"]);
    // A second connection, beside the first.
    let _first = transport.connect().await.unwrap();
    let reason = "it offers neither AUTH PLAIN nor AUTH LOGIN".to_owned();
    assert_eq!(
        transport.connect().await.err(),
        Some(SendError::Relay(reason))
    );
}

/// What was offered before TLS could come from anybody.
#[tokio::test]
async fn what_was_said_before_tls_is_forgotten() {
    let (acceptor, ca_file) = certificate();
    let server = ScriptedSmtp::start_with(Encryption::StartTls(acceptor)).await;
    server.offer(&["PIPELINING"]);
    let mut settings = settings(&server.url());
    settings.ca_file = Some(ca_file.path().to_owned());
    let transport = SmtpTransport::new(settings).unwrap();
    server.fail_once(
        At::Ehlo,
        Fault::Reply("250-test\r\n250-STARTTLS\r\n250 SIZE 1"),
    );
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.commands("EHLO").len(), 2);
    assert_eq!(server.pipelined(), 2);

    // Injected between the answer to STARTTLS and TLS (CVE-2011-0411).
    server.fail_once(At::StartTls, Fault::Twice);
    let _first = transport.connect().await.unwrap();
    let refused = transport.connect().await.err();
    assert!(
        matches!(&refused, Some(SendError::Relay(reason)) if reason.contains("between")),
        "{refused:?}"
    );
    assert_eq!(server.encrypted(), 1);
}
