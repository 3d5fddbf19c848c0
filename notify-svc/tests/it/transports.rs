//! Both ways for emails to leave keep the same promises; and what only SMTP has to get right.

use std::{io::Write as _, sync::Arc, time::Duration};

use notify_svc::{
    domain::Recipient,
    local_inbox::LocalInbox,
    mail::{Envelope, MailConnection as _, MailTransport, MessageHeaders, OutgoingMail, SendError},
    render::Rendered,
    smtp::{RelayUrl, SmtpLogin, SmtpSettings, SmtpTimeouts, SmtpTransport},
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use secrecy::SecretString;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::scripted_smtp::{At, Encryption, Fault, ScriptedSmtp};

pub fn settings(url: &str) -> SmtpSettings {
    SmtpSettings {
        url: url.parse::<RelayUrl>().unwrap(),
        ehlo_name: "test.example".to_owned(),
        login: None,
        ca_file: None,
        max_connections: 2,
        max_mails_per_connection: 100,
        idle_timeout: Duration::from_secs(30),
        timeouts: SmtpTimeouts {
            connect: Duration::from_secs(5),
            command: Duration::from_secs(2),
            data: Duration::from_secs(2),
        },
    }
}

pub fn mail(recipient: &str, name: &str, text: &str) -> OutgoingMail {
    let recipient = Recipient::parse(recipient).unwrap();
    let headers = MessageHeaders {
        delivery_id: Uuid::now_v7(),
        sender_name: "Élan",
        reply_to: None,
        recipient: &recipient,
        recipient_name: name,
        date: std::time::UNIX_EPOCH,
    };
    let rendered = Rendered {
        subject: "Ça va?".to_owned(),
        html: format!("<p>{text}</p>"),
        text: text.to_owned(),
        locale: "fr".to_owned(),
    };
    let envelope = Envelope {
        from: "no-reply@mail.example".parse().unwrap(),
    };
    envelope.write(&headers, rendered).unwrap()
}

/// The promises: what is accepted arrives as it was, in order, to whom it was meant.
async fn conforms<T: MailTransport>(transport: T, arrived: impl Fn() -> Vec<(String, Vec<u8>)>) {
    let texts = [
        "plain",
        ".\r\n.leading dots\r\n..",
        "Łódź 東京 مرحبا",
        &"x".repeat(5_000),
    ];
    for (index, text) in texts.iter().enumerate() {
        let recipient = format!("client{index}@example.org");
        let mail = mail(
            &recipient,
            "Zoë \"Z\" <x@y>, O'Hara\r\nBcc: eve@example.org",
            text,
        );
        let reply = transport
            .connect()
            .await
            .unwrap()
            .send(&mail)
            .await
            .unwrap();
        assert_eq!(reply.code, 250);
        let arrived = arrived();
        assert_eq!(arrived.len(), index + 1);
        assert_eq!(arrived[index].0, recipient);
        let parsed = mail_parser::MessageParser::default()
            .parse(&arrived[index].1)
            .unwrap();
        let body = parsed.body_text(0).unwrap();
        assert_eq!(
            body.trim_end().replace("\r\n", "\n"),
            text.replace("\r\n", "\n")
        );
        assert_eq!(parsed.subject(), Some("Ça va?"));
        let to = parsed.to().unwrap().first().unwrap();
        assert_eq!(to.address(), Some(recipient.as_str()));
        assert_eq!(
            to.name(),
            Some("Zoë \"Z\" <x@y>, O'Hara Bcc: eve@example.org")
        );
        assert!(parsed.bcc().is_none(), "a name became a header");
    }
}

#[tokio::test]
async fn smtp_conforms() {
    let server = ScriptedSmtp::start().await;
    let transport = SmtpTransport::new(settings(&server.url())).unwrap();
    conforms(transport, || {
        server
            .taken()
            .into_iter()
            .map(|mail| (mail.recipient, mail.raw))
            .collect()
    })
    .await;
    assert_eq!(
        server.connections(),
        1,
        "one after the other shares a connection"
    );
}

#[tokio::test]
async fn the_local_inbox_conforms() {
    let inbox = LocalInbox::new();
    conforms(inbox.clone(), || {
        inbox
            .messages()
            .into_iter()
            .map(|mail| (mail.recipient, mail.raw))
            .collect()
    })
    .await;
    let first = inbox.messages().remove(0);
    assert_eq!(inbox.get(first.id).unwrap().raw, first.raw);
}

#[tokio::test]
async fn the_pool_opens_no_more_connections_than_it_may() {
    let server = ScriptedSmtp::start().await;
    let transport = SmtpTransport::new(settings(&server.url())).unwrap();
    let sends = (0..40).map(|index| {
        let transport = transport.clone();
        async move {
            let mail = mail(&format!("client{index}@example.org"), "", "hello");
            transport
                .connect()
                .await
                .unwrap()
                .send(&mail)
                .await
                .unwrap()
        }
    });
    futures::future::join_all(sends).await;
    assert_eq!(server.taken().len(), 40);
    assert!(server.most_open() <= 2, "{}", server.most_open());
}

#[tokio::test]
async fn a_stalled_email_does_not_spoil_the_next_one() {
    let server = ScriptedSmtp::start().await;
    let transport = SmtpTransport::new(settings(&server.url())).unwrap();
    server.fail_once(At::Rcpt, Fault::Stall);
    let stalled = mail("stalled@example.org", "", "hello");
    let result = transport.connect().await.unwrap().send(&stalled).await;
    assert_eq!(result, Err(SendError::Interrupted));
    let next = mail("next@example.org", "", "hello");
    transport
        .connect()
        .await
        .unwrap()
        .send(&next)
        .await
        .unwrap();
    assert_eq!(server.taken().len(), 1);
    assert_eq!(
        server.connections(),
        2,
        "the connection that was out of step is not used again"
    );
}

#[tokio::test]
async fn a_refused_email_leaves_the_connection_usable() {
    let server = ScriptedSmtp::start().await;
    let transport = SmtpTransport::new(settings(&server.url())).unwrap();
    server.fail_once(At::Rcpt, Fault::Reply("550 5.7.1 no"));
    let refused = mail("refused@example.org", "", "hello");
    assert!(
        transport
            .connect()
            .await
            .unwrap()
            .send(&refused)
            .await
            .is_err()
    );
    let next = mail("next@example.org", "", "hello");
    transport
        .connect()
        .await
        .unwrap()
        .send(&next)
        .await
        .unwrap();
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn old_and_worn_connections_are_replaced() {
    let server = ScriptedSmtp::start().await;
    let mut settings = settings(&server.url());
    settings.max_mails_per_connection = 2;
    let transport = SmtpTransport::new(settings).unwrap();
    for index in 0..5 {
        let mail = mail(&format!("client{index}@example.org"), "", "hello");
        transport
            .connect()
            .await
            .unwrap()
            .send(&mail)
            .await
            .unwrap();
    }
    assert_eq!(server.connections(), 3);
}

/// A certificate for 127.0.0.1, signed by itself, and the file that makes it trusted.
pub fn certificate() -> (TlsAcceptor, tempfile::NamedTempFile) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(made.cert.pem().as_bytes()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), file)
}

pub async fn send_one(settings: SmtpSettings) -> Result<(), SendError> {
    let transport = SmtpTransport::new(settings).unwrap();
    let mail = mail("zoe@example.org", "", "hello");
    transport.connect().await?.send(&mail).await.map(|_| ())
}

#[tokio::test]
async fn tls_begins_as_the_url_says_and_trusts_the_given_authority() {
    let (acceptor, ca_file) = certificate();
    let start_tls = ScriptedSmtp::start_with(Encryption::StartTls(acceptor.clone())).await;
    let implicit = ScriptedSmtp::start_with(Encryption::Implicit(acceptor)).await;
    for (server, scheme) in [
        (&start_tls, "smtp"),
        (&start_tls, "smtp+starttls"),
        (&implicit, "smtps"),
    ] {
        let url = format!("{scheme}://127.0.0.1:{}", server.port());
        let mut trusting = settings(&url);
        trusting.ca_file = Some(ca_file.path().to_owned());
        trusting.login = Some(login(false));
        let before = server.encrypted();
        send_one(trusting).await.unwrap();
        assert_eq!(server.encrypted(), before + 1);
        // AUTH PLAIN: two NULs and base64.
        assert!(server.logins().last().unwrap().starts_with("AUTH PLAIN "));

        let strict = send_one(settings(&url)).await;
        assert!(
            matches!(strict, Err(SendError::Relay(reason)) if reason.contains("TLS handshake")),
            "{scheme}"
        );
    }
    let url = format!("smtp+plaintext://127.0.0.1:{}", start_tls.port());
    let before = start_tls.encrypted();
    send_one(settings(&url)).await.unwrap();
    assert_eq!(start_tls.encrypted(), before);
}

#[tokio::test]
async fn required_tls_and_passwords_are_not_given_up() {
    let server = ScriptedSmtp::start().await;
    let url = format!("smtp+starttls://127.0.0.1:{}", server.port());
    assert_eq!(
        send_one(settings(&url)).await,
        Err(SendError::Relay(
            "it offers no STARTTLS; smtp+plaintext:// in SMTP_URL sends without".to_owned()
        ))
    );
    let mut with_login = settings(&server.url());
    with_login.login = Some(login(false));
    assert!(matches!(
        send_one(with_login.clone()).await,
        Err(SendError::Relay(_))
    ));
    assert!(server.logins().is_empty());
    with_login.login = Some(login(true));
    send_one(with_login).await.unwrap();
    assert_eq!(server.logins().len(), 1);
}

pub fn login(allow_plaintext: bool) -> SmtpLogin {
    SmtpLogin {
        username: "usher".to_owned(),
        password: SecretString::from("secret"),
        allow_plaintext,
    }
}
