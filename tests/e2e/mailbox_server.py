"""An SMTP server that keeps what it gets, and reads it with Python's own email parser."""

import email
import email.policy
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass
from email.message import EmailMessage

from aiosmtpd.controller import Controller

from processes import free_port

LINK = re.compile(r"https?://[^\s\"'<>]+/(?:activate|share)\?token=([A-Za-z0-9_-]+)")


@dataclass
class Mail:
    """One email as it came in."""

    recipient: str
    message: EmailMessage

    @property
    def message_id(self) -> str:
        return self.message["Message-ID"]

    @property
    def text(self) -> str:
        return self.message.get_body(("plain",)).get_content()

    @property
    def html(self) -> str:
        return self.message.get_body(("html",)).get_content()

    @property
    def token(self) -> str:
        """The token of the link, which text and HTML have to agree on."""
        tokens = {*LINK.findall(self.text), *LINK.findall(self.html)}
        assert len(tokens) == 1, f"an email has to hold one link, this one holds {len(tokens)}"
        return tokens.pop()


class Mailbox:
    """Keeps every email, by recipient in the order of arrival."""

    def __init__(self):
        self.mails: list[Mail] = []
        self.changed = threading.Condition()
        self.port = free_port()
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port)

    def __enter__(self):
        self.controller.start()
        return self

    def __exit__(self, *_):
        self.controller.stop()

    async def handle_DATA(self, _server, _session, envelope):  # noqa: N802 (aiosmtpd's name)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        with self.changed:
            self.mails += [Mail(recipient, message) for recipient in envelope.rcpt_tos]
            self.changed.notify_all()
        return "250 2.0.0 kept"

    def to(self, recipients: set[str]) -> list[Mail]:
        """The emails to these recipients so far."""
        with self.changed:
            return [mail for mail in self.mails if mail.recipient in recipients]

    def wait_for(self, recipients: set[str], seconds: float, each: int = 1) -> list[Mail]:
        """The emails to these recipients, once each of them has at least so many."""
        deadline = time.monotonic() + seconds
        with self.changed:
            while missing := recipients - self.recipients_of(each):
                left = deadline - time.monotonic()
                if left <= 0 or not self.changed.wait(left):
                    raise AssertionError(
                        f"{len(missing)} of {len(recipients)} recipients got fewer than {each} emails in {seconds} s"
                    )
        return self.to(recipients)

    def recipients_of(self, each: int) -> set[str]:
        counts = Counter(mail.recipient for mail in self.mails)
        return {recipient for recipient, count in counts.items() if count >= each}
