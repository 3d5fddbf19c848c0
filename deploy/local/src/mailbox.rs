//! The emails of the local inbox, taken apart as a mail program does.

use mail_parser::{Address, Message, MessageParser};
use minijinja::{Value, context};
use notify_svc::local_inbox::{LocalInbox, StoredMail};
use uuid::Uuid;

use crate::readable_time;

/// An email as a mail program shows it.
#[derive(Default)]
pub(crate) struct Mail {
    pub(crate) id: String,
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) subject: String,
    pub(crate) date: String,
    pub(crate) html: String,
    pub(crate) text: String,
    /// The header section as it was sent.
    pub(crate) headers: String,
}

impl From<Mail> for Value {
    fn from(mail: Mail) -> Self {
        context! {
            id => mail.id,
            from => mail.from,
            to => mail.to,
            subject => mail.subject,
            date => mail.date,
            text => mail.text,
            headers => mail.headers,
        }
    }
}

/// The emails, newest first.
pub(crate) fn list(inbox: &LocalInbox) -> Vec<Mail> {
    inbox.messages().iter().rev().map(read).collect()
}

/// The email of a delivery.
pub(crate) fn find(inbox: &LocalInbox, id: Uuid) -> Option<Mail> {
    inbox.get(id).as_ref().map(read)
}

fn read(stored: &StoredMail) -> Mail {
    let id = stored.id.to_string();
    let Some(message) = MessageParser::default().parse(&stored.raw) else {
        return Mail {
            id,
            subject: "(not readable)".to_owned(),
            ..Mail::default()
        };
    };
    Mail {
        id,
        from: people(message.from()),
        to: people(message.to()),
        subject: message.subject().unwrap_or_default().to_owned(),
        date: message
            .date()
            .map(|date| readable_time::from_unix(date.to_timestamp()))
            .unwrap_or_default(),
        html: message.body_html(0).unwrap_or_default().into_owned(),
        text: message.body_text(0).unwrap_or_default().into_owned(),
        headers: header_section(&message),
    }
}

/// Names and addresses of a header.
fn people(address: Option<&Address>) -> String {
    let people = address.into_iter().flat_map(Address::iter).map(|person| {
        let address = person.address().unwrap_or_default();
        match person.name() {
            Some(name) => format!("{name} <{address}>"),
            None => address.to_owned(),
        }
    });
    people.collect::<Vec<_>>().join(", ")
}

fn header_section(message: &Message) -> String {
    let raw = String::from_utf8_lossy(message.raw_message());
    let headers = raw.split_once("\r\n\r\n").map_or(&*raw, |(head, _)| head);
    headers.replace("\r\n", "\n")
}
