"""Clicks through the local mode in a browser and takes pictures of what people see."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from webdriver import Browser

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "usher-local"
PASSWORD = "seven quiet lighthouses"
PATIENCE_SECONDS = 20
# Name, width, height, whether it is a phone.
WINDOWS = [("phone", 390, 844, True), ("desktop", 1200, 900, False)]


class UsherLocal:
    """The program as a person starts it; what it prints is the only thing known of it."""

    def __enter__(self):
        unset = {"DATABASE_URL", "AMQP_URL", "SMTP_URL", "USHER_DATA_DIR"}
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        # Ada gets several emails in a row.
        environment["RECIPIENT_GAP"] = "0s"
        self._process = subprocess.Popen(
            [PROGRAM, "--account-port=0", "--notify-port=0", "--web-port=0"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        printed = []
        for line in self._process.stdout:
            printed.append(line)
            if line.startswith("Ctrl-C"):
                break
        self.printed = "".join(printed)
        assert "Ctrl-C" in self.printed, f"usher-local did not start:\n{self.printed}"
        self.web = self._find(r"Web page +(\S+)")
        self.account = self._find(r"account-svc +(\S+) \(gRPC\)")
        self.notify = self._find(r"notify-svc +(\S+) \(gRPC\)")
        self.organization_id = self._find(r"Organization +(\S+)")
        return self

    def __exit__(self, *_):
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(60)
        assert code == 0, f"usher-local ended with {code}"

    def paste(self, method: str):
        """Runs the printed command that calls a method."""
        return run(self._find(rf"^ +(buf curl .*/{method})$"))

    def call(self, address: str, method: str, request: dict):
        """Calls a method in the way of the printed commands."""
        command = "buf curl --protocol grpc --http2-prior-knowledge"
        return run(f"{command} -d {shlex.quote(json.dumps(request))} http://{address}/{method}")

    def state_of(self, organization_id: str) -> str:
        request = {"organization_id": organization_id}
        answer = self.call(self.account, "usher.account.v1.AccountService/ListAccounts", request)
        (account,) = answer["accounts"]
        return account["state"]

    def _find(self, pattern: str) -> str:
        found = re.search(pattern, self.printed, re.MULTILINE)
        assert found, f"{pattern} is not in what usher-local prints:\n{self.printed}"
        return found[1]


def run(command: str):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return json.loads(done.stdout)


def newcomer_activates(usher: UsherLocal, browser: Browser, pictures: Path):
    """The way that the README describes, by clicks alone."""
    browser.open(usher.web)
    browser.screenshot(pictures / "page-inbox-empty.png")
    created = usher.paste("CreateAccount")
    assert created["account"]["state"] == "ACCOUNT_STATE_INVITED", created

    # The inbox refreshes by itself.
    browser.find_link("Activate your account at Harbour Clinic").click()
    browser.screenshot(pictures / "page-mail.png")
    browser.enter_frame("iframe.mail")
    browser.find_link("Choose a password").click()
    browser.leave_frame()
    browser.find("#password").type("short")
    browser.screenshot(pictures / "page-activate.png")
    assert "/activate?token=" in browser.url, browser.url

    # What the browser refuses itself does not reach the server: a long but common password does.
    browser.find("#password").clear()
    browser.find("#password").type("passwordpassword")
    browser.find("button[type=submit]").click()
    browser.wait_for("alert", "easy to guess")
    browser.screenshot(pictures / "page-activate-refused.png")
    assert usher.state_of(usher.organization_id) == "ACCOUNT_STATE_INVITED"

    browser.find("#password").type(PASSWORD)
    browser.find("button[type=submit]").click()
    browser.wait_for("status", "belongs to you now")
    browser.screenshot(pictures / "page-active.png")
    assert usher.state_of(usher.organization_id) == "ACCOUNT_STATE_ACTIVE"

    browser.find("#email").type("ada@example.org")
    browser.find("#password").type(PASSWORD)
    browser.find("button[type=submit]").click()
    browser.wait_for("status", "first login")

    # The link is used up, and the page says so before anybody types a password.
    browser.open(usher.web)
    browser.find_link("Activate your account").click()
    browser.enter_frame("iframe.mail")
    browser.find_link("Choose a password").click()
    browser.leave_frame()
    browser.wait_for_heading("This link was used already")
    browser.screenshot(pictures / "page-used.png")


def emails_fit_every_window(usher: UsherLocal, browser: Browser, pictures: Path):
    """Pictures of both kinds of email in both languages; none makes a phone scroll sideways."""
    for locale, color in [("en", "#ffd400"), ("fr", "#7a1f3d")]:
        invite_and_ask_to_share(usher, locale, color)
    for title, path in wait_for_mails(usher, 5):
        for name, width, height, is_phone in WINDOWS:
            browser.resize(width, height, is_phone)
            for scheme in ["light", "dark"]:
                browser.prefer(scheme)
                browser.open(f"{usher.web}{path}/html")
                assert browser.content_width() <= width, f"{title} is wider than a {name}"
                file = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
                browser.screenshot(pictures / f"mail-{file}-{name}-{scheme}.png")
    for name, width, height, is_phone in WINDOWS:
        browser.resize(width, height, is_phone)
        browser.open(usher.web)
        assert browser.content_width() <= width, f"the inbox is wider than a {name}"
        browser.screenshot(pictures / f"page-inbox-{name}.png")


def invite_and_ask_to_share(usher: UsherLocal, locale: str, color: str):
    """One activation email, and one share request to Ada, who has a login already."""
    organization = {
        "slug": f"looks-{locale}",
        "display_name": {"en": "Northern Lights Physiotherapy", "fr": "Cabinet de l’Étoile"}[locale],
        "default_locale": locale,
        "portal_url": usher.web,
        "brand": {"color": color},
    }
    service = "usher.account.v1.OrganizationService/CreateOrganization"
    created = usher.call(usher.account, service, {"organization": organization})
    organization_id = created["organization"]["organizationId"]
    people = [
        {"given_name": "Zoë", "family_name": "Nguyễn-O’Brien", "email": f"zoe.{locale}@example.org"},
        {"given_name": "Ada", "family_name": "Lovelace", "email": "ada@example.org"},
    ]
    for person in people:
        request = {
            "organization_id": organization_id,
            "account": person,
            "on_platform_match": "PLATFORM_MATCH_POLICY_REQUEST_SHARE",
        }
        usher.call(usher.account, "usher.account.v1.AccountService/CreateAccount", request)


def wait_for_mails(usher: UsherLocal, count: int):
    """Titles and paths of all emails, once there are `count`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with urllib.request.urlopen(usher.web) as response:
            inbox = response.read().decode()
        mails = re.findall(r'href="(/mail/[^"]+)">\s*<span class="subject">([^<]*)', inbox)
        if len(mails) >= count:
            return [(title, path) for path, title in mails]
        assert time.monotonic() < deadline, f"{len(mails)} of {count} emails came"
        time.sleep(0.1)


def main():
    pictures = Path(sys.argv[1])
    pictures.mkdir(parents=True, exist_ok=True)
    with UsherLocal() as usher, Browser() as browser:
        browser.resize(1200, 900, False)
        newcomer_activates(usher, browser, pictures)
        print("ok: a newcomer pastes the command, clicks the link and activates the account")
        emails_fit_every_window(usher, browser, pictures)
        print(f"ok: emails fit phone and desktop; pictures in {pictures}")


main()
