"""Looks for raw tokens and passwords where none may be."""

import base64
from dataclasses import dataclass

# Bytes that tell most secrets apart; every form is longer.
START = 12


@dataclass(frozen=True)
class Place:
    """Something that was kept, and a text that is known to be in it: proof that it was really read."""

    name: str
    content: bytes
    known: bytes


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: as it is, in hexadecimal as PostgreSQL dumps bytes, in base64."""
    text = secret.encode()
    written = {text, text.hex().encode(), base64.b64encode(text).rstrip(b"=")}
    if len(secret) == 43:  # 32 bytes in base64url: a token
        raw = base64.urlsafe_b64decode(secret + "=")
        written |= {raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"=")}
    return written


def found_in(content: bytes, secrets: set[str]) -> set[str]:
    """The secrets that are in the content, in any form. One pass, however many secrets there are."""
    by_start = {}
    for secret in secrets:
        for form in forms(secret):
            by_start.setdefault(form[:START], []).append((form, secret))
    return {
        secret
        for offset in range(len(content))
        for form, secret in by_start.get(content[offset : offset + START], ())
        if content.startswith(form, offset)
    }


def assert_nowhere(secrets: set[str], places: list[Place]):
    """Fails, naming the place and not the secret, if any secret is in any place in any form."""
    assert secrets, "there is nothing to look for"
    for place in places:
        assert place.known in place.content, f"{place.name} was not read"
        found = found_in(place.content, secrets)
        assert not found, f"{len(found)} of {len(secrets)} secrets are in {place.name}"
