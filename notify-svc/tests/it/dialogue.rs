//! Each step of the SMTP dialogue, and each way in which it can go wrong.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, stream};
use notify_svc::{
    domain::{Reply, Stage},
    mail::{MailConnection as _, MailTransport as _, SendError},
    smtp::SmtpTransport,
};
use rstest::rstest;

use crate::{
    scripted_smtp::{At, Encryption, Fault, ScriptedSmtp},
    transports::{certificate, login, mail, settings},
};

/// What becomes of an email, and of its connection where that is not clear from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Accepted; the next email goes over the same connection.
    Sent,
    /// Accepted, and the connection is closed.
    SentClosed,
    /// The connection that was open is closed, and the email is accepted over a new one.
    SentAnew,
    /// Refused with the reply of the fault; the next email goes over the same connection.
    Refused,
    /// Refused likewise, and the connection is closed.
    RefusedClosed,
    /// Trouble of the relay; closed.
    Relay,
    /// Not accepted for certain, and nobody is to blame; closed.
    Interrupted,
    /// Nobody knows; closed.
    Lost,
}

use End::{Interrupted, Lost, Refused, RefusedClosed, Relay, Sent, SentAnew, SentClosed};

const FAULTS: [Fault; 8] = [
    Fault::Reply("451 4.3.0 try later"),
    Fault::Reply("421 4.3.2 closing"),
    Fault::Reply("554 5.7.1 no"),
    Fault::Stall,
    Fault::Cut,
    Fault::Garbage,
    Fault::Split,
    Fault::Twice,
];

/// For the first email over a connection, whose faults are the relay's.
#[rustfmt::skip]
const FIRST: [(At, [End; 8]); 9] = [
    //                4yz            421            5yz            stall        cut          garbage split twice
    (At::Connect,  [RefusedClosed, RefusedClosed, RefusedClosed, Relay,       Relay,       Relay,  Sent, Relay]),
    (At::Ehlo,     [RefusedClosed, RefusedClosed, RefusedClosed, Relay,       Relay,       Relay,  Sent, Relay]),
    (At::StartTls, [RefusedClosed, RefusedClosed, RefusedClosed, Relay,       Relay,       Relay,  Sent, Relay]),
    (At::Auth,     [RefusedClosed, RefusedClosed, RefusedClosed, Relay,       Relay,       Relay,  Sent, Relay]),
    (At::Mail,     [Refused,       RefusedClosed, Refused,       Relay,       Relay,       Relay,  Sent, Interrupted]),
    (At::Rcpt,     [Refused,       Interrupted,   Refused,       Interrupted, Interrupted, Interrupted, Sent, Interrupted]),
    (At::Data,     [Refused,       Interrupted,   Refused,       Interrupted, Interrupted, Interrupted, Sent, Interrupted]),
    (At::Dot,      [Refused,       Interrupted,   Refused,       Lost,        Lost,        Lost,   Sent, SentClosed]),
    // After the second email, with which the connection is worn out.
    (At::Quit,     [Sent,          Sent,          Sent,          Sent,        Sent,        Sent,   Sent, Sent]),
];

/// For an email over a connection that was used before: until MAIL is accepted, its faults are its age.
#[rustfmt::skip]
const LATER: [(At, [End; 8]); 4] = [
    (At::Rset,     [SentAnew,      SentAnew,      SentAnew,      SentAnew,    SentAnew,    SentAnew, Sent, Interrupted]),
    (At::Mail,     [Refused,       SentAnew,      Refused,       SentAnew,    SentAnew,    SentAnew, Sent, Interrupted]),
    (At::Rcpt,     [Refused,       Interrupted,   Refused,       Interrupted, Interrupted, Interrupted, Sent, Interrupted]),
    (At::Dot,      [Refused,       Interrupted,   Refused,       Lost,        Lost,        Lost,     Sent, SentClosed]),
];

#[rstest]
#[case::pipelined(&["AUTH PLAIN", "PIPELINING"])]
#[case::step_by_step(&["AUTH LOGIN"])]
#[tokio::test]
async fn every_fault_at_every_step_ends_as_it_should(#[case] extensions: &'static [&'static str]) {
    let (acceptor, ca_file) = certificate();
    let ca_file = Arc::new(ca_file);
    let tables = [(false, FIRST.as_slice()), (true, &LATER)];
    let cells = tables
        .into_iter()
        .flat_map(|(later, table)| table.iter().map(move |row| (later, row)))
        .flat_map(|(later, (at, ends))| {
            FAULTS
                .into_iter()
                .zip(*ends)
                .map(move |it| (later, *at, it))
        })
        .map(|(later, at, (fault, mut end))| {
            // Without pipelining the answer too many is found before the next command.
            if later && (at, fault) == (At::Rset, Fault::Twice) && extensions.len() == 1 {
                end = SentAnew;
            }
            let (acceptor, ca_file) = (acceptor.clone(), Arc::clone(&ca_file));
            async move {
                let server = ScriptedSmtp::start_with(Encryption::StartTls(acceptor)).await;
                server.offer(extensions);
                let mut settings = settings(&server.url());
                settings.ca_file = Some(ca_file.path().to_owned());
                settings.login = Some(login(false));
                // Short only where it has to pass.
                let limit = Duration::from_secs(if fault == Fault::Stall { 1 } else { 20 });
                (settings.timeouts.command, settings.timeouts.data) = (limit, limit);
                settings.max_mails_per_connection = 2 + u32::from(later);
                let transport = SmtpTransport::new(settings).unwrap();
                let seen = end_of(&server, &transport, later, at, fault).await;
                (seen != end).then(|| format!("{later} {at:?} {fault:?}: {seen:?}, not {end:?}"))
            }
        });
    let seen = stream::iter(cells).buffer_unordered(16);
    let wrong: Vec<_> = seen.filter_map(async |wrong| wrong).collect().await;
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Sends an email that meets `fault`, and then a neighbour that does not.
async fn end_of(
    server: &ScriptedSmtp,
    transport: &SmtpTransport,
    later: bool,
    at: At,
    fault: Fault,
) -> End {
    if later {
        let first = if at == At::Rset {
            server.fail_once(At::Rcpt, Fault::Reply("550 5.1.1 unknown"));
            assert!(send(transport, "first").await.is_err());
            0
        } else {
            send(transport, "first").await.unwrap();
            1
        };
        assert_eq!(server.taken_count(), first);
    }
    server.fail_once(at, fault);
    let result = send(transport, "faulty").await;
    let taken = server.taken_for("faulty@example.org").len();
    let connections = server.connections();
    send(transport, "neighbour").await.unwrap();
    assert_eq!(server.taken_for("neighbour@example.org").len(), 1);
    let is_kept = server.connections() == connections;
    let is_anew = connections > 1;
    match result {
        Ok(_) if taken != 1 => panic!("{at:?} {fault:?}: not taken"),
        Ok(_) if is_anew => SentAnew,
        Ok(_) if is_kept => Sent,
        Ok(_) => SentClosed,
        Err(error) if taken > 0 && at != At::Dot => panic!("{at:?} {fault:?}: taken, {error}"),
        Err(SendError::Refused { stage, reply }) => {
            assert_eq!(stage, stage_of(at));
            assert!(matches!(fault, Fault::Reply(text) if text.starts_with(&reply.to_string())));
            if is_kept { Refused } else { RefusedClosed }
        }
        Err(error) if is_kept => panic!("{at:?} {fault:?}: kept, {error}"),
        Err(SendError::Relay(_)) => Relay,
        Err(SendError::Interrupted) => Interrupted,
        Err(SendError::AnswerLost) => Lost,
        Err(error) => panic!("{at:?} {fault:?}: {error}"),
    }
}

fn stage_of(at: At) -> Stage {
    match at {
        At::Mail => Stage::Mail,
        At::Rcpt => Stage::Recipient,
        At::Data => Stage::Data,
        At::Dot => Stage::Content,
        _ => Stage::Connect,
    }
}

pub async fn send(transport: &SmtpTransport, name: &str) -> Result<Reply, SendError> {
    let mail = mail(&format!("{name}@example.org"), "", "hello");
    transport.connect().await?.send(&mail).await
}

/// A transport to a server of one's own that offers `extensions`.
pub async fn transport(extensions: &[&str]) -> (ScriptedSmtp, SmtpTransport) {
    let server = ScriptedSmtp::start().await;
    server.offer(extensions);
    let transport = SmtpTransport::new(settings(&server.url())).unwrap();
    (server, transport)
}

#[rstest]
#[case("250", true)]
#[case("250-a\r\n250", true)]
#[case("200 ok", true)]
#[case("299 fine", true)]
#[case("250 \u{e9}", true)]
// Nothing of an email was accepted with these, and nothing was refused.
#[case("150 wait", false)]
#[case("354 go on", false)]
#[case("334 and now?", false)]
#[case("221 bye", false)]
#[case("220 hello", false)]
#[case("650 what?", false)]
#[tokio::test]
async fn only_a_positive_answer_to_the_final_dot_accepts(
    #[case] answer: &'static str,
    #[case] accepts: bool,
) {
    let (server, transport) = transport(&["PIPELINING"]).await;
    server.fail_once(At::Dot, Fault::Reply(answer));
    let result = send(&transport, "zoe").await;
    if accepts {
        assert!(answer.starts_with(&result.unwrap().code.to_string()));
    } else {
        assert_eq!(result, Err(SendError::AnswerLost));
        send(&transport, "neighbour").await.unwrap();
        assert_eq!(server.connections(), 2, "out of step");
    }
}

/// Without its final dot nothing was accepted (RFC 5321, section 4.1.1.4).
#[tokio::test]
async fn a_connection_that_is_cut_within_the_content_accepted_nothing() {
    let (acceptor, ca_file) = certificate();
    // More than fits into the connection.
    let mut large = mail("zoe@example.org", "", "hello");
    let line = [&[b'x'; 998][..], b"\r\n"].concat();
    large.raw.extend(line.repeat(14_000));
    for encryption in [Encryption::None, Encryption::StartTls(acceptor)] {
        let server = ScriptedSmtp::start_with(encryption).await;
        let mut settings = settings(&server.url());
        settings.ca_file = Some(ca_file.path().to_owned());
        settings.timeouts.command = Duration::from_secs(20);
        let transport = SmtpTransport::new(settings).unwrap();
        server.fail_once(At::Content, Fault::Cut);
        let result = transport.connect().await.unwrap().send(&large).await;
        assert_eq!(result, Err(SendError::Interrupted));
        assert!(!server.has_faults_left());
    }
}

/// N8: it costs no time and no attempt.
#[tokio::test]
async fn a_connection_that_died_while_it_was_idle_is_replaced_at_once() {
    let (server, transport) = transport(&["PIPELINING"]).await;
    server.fail_once(At::Dot, Fault::ThenCut);
    send(&transport, "first").await.unwrap();
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.connections(), 2);
    // Once, and not for a connection that is new.
    server.fail_once(At::Mail, Fault::Cut);
    server.fail_once(At::Mail, Fault::Cut);
    let reason = "MAIL: it hung up".to_owned();
    assert_eq!(send(&transport, "zoe").await, Err(SendError::Relay(reason)));
    assert_eq!(server.connections(), 3);
}

/// RFC 2920, section 3.1.
#[tokio::test]
async fn a_relay_that_wants_content_for_nobody_gets_none() {
    let (server, transport) = transport(&["PIPELINING"]).await;
    server.be_careless();
    server.fail_once(At::Rcpt, Fault::Reply("550 5.1.1 unknown"));
    let refused = send(&transport, "ann").await;
    let is_expected = matches!(
        refused,
        Err(SendError::Refused {
            stage: Stage::Recipient,
            ..
        })
    );
    assert!(is_expected, "{refused:?}");
    assert_eq!(server.nothing_for_nobody(), 1);
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.connections(), 1, "in step");

    // With a recipient, the empty email would be delivered.
    server.fail_once(At::Mail, Fault::Reply("550 5.7.1 not you"));
    let refused = send(&transport, "ann").await;
    let is_expected = matches!(
        refused,
        Err(SendError::Refused {
            stage: Stage::Mail,
            ..
        })
    );
    assert!(is_expected, "{refused:?}");
    send(&transport, "zoe").await.unwrap();
    assert_eq!(server.connections(), 2);
    assert!(server.taken_for("ann@example.org").is_empty());
}

/// The time of a step is for the whole of its reply: a relay cannot stretch it byte by byte.
#[tokio::test]
async fn a_relay_that_trickles_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("smtp://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.unwrap();
        while stream.write_all(b"220-").await.is_ok() && stream.write_all(b"\r\n").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut settings = settings(&url);
    settings.timeouts.command = Duration::from_millis(200);
    let transport = SmtpTransport::new(settings).unwrap();
    let reason = "greeting: it did not answer in time".to_owned();
    assert_eq!(
        transport.connect().await.err(),
        Some(SendError::Relay(reason))
    );
}
