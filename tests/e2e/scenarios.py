"""What has to be true of both services together. Each scenario has an organization of its own."""

import secrets
import time
from collections import Counter
from datetime import timedelta

import people
from environment import ACTIVATION, DELIVERIES, INVITATIONS, PORTAL, Environment, at_once, in_background, new_id, outcome
from people import Client, Outcome
from processes import wait_until
from rpc import Refused
from secrets_search import assert_nowhere

PASSWORD = "violet kettle orbits slowly {}"
EMAIL_SECONDS = 60


def five_hundred_clients(environment: Environment) -> str:
    """Staff enter 500 clients; each that should be is created and invited, and takes the account over."""
    organization = environment.organization("clients")
    unique, duplicates = people.everybody()
    created = {}

    def enter(client: Client) -> Outcome:
        try:
            created[id(client)] = environment.create(organization, client.account)
            return Outcome.CREATED
        except Refused as refused:
            assert refused.reason in {expected.value for expected in Outcome}, refused
            if client.insists:
                report = refused.detail("DuplicateReport")
                assert report.candidates[0].account_id == created[id(client.original)].account_id
                created[id(client)] = environment.create(
                    organization, client.account,
                    duplicate_acknowledgement=report.acknowledgement, acknowledgement_reason="twins",
                )
            return Outcome(refused.reason)

    for clients in (unique, duplicates):
        answers = at_once(enter, clients)
        surprises = [(client, answer) for client, answer in zip(clients, answers) if answer is not client.outcome]
        assert not surprises, f"{len(surprises)} unexpected answers, the first: {surprises[0]}"

    everybody = unique + duplicates
    invited = [client for client in everybody if client.gets_email]
    accounts = environment.all_accounts(organization)
    assert len(accounts) == sum(client.is_created for client in everybody)
    assert {account.account_id for account in accounts} == {account.account_id for account in created.values()}

    recipients = {created[id(client)].email for client in invited}
    assert len(recipients) == len(invited)
    mails = environment.mailbox.wait_for(recipients, EMAIL_SECONDS)
    assert len(mails) == len(invited), f"{len(mails)} emails for {len(invited)} invitations"
    clients = {created[id(client)].email: client for client in invited}
    for mail in mails:
        check_mail(mail, clients[mail.recipient])

    activated = Counter(at_once(lambda mail: take_over(environment, organization, mail), mails))
    assert set(activated.values()) == {1}, "two links activated one account"
    assert set(activated) == {created[id(client)].account_id for client in invited}
    return f"{len(accounts)} accounts, {len(duplicates)} warnings, {len(mails)} emails, {len(activated)} activations"


def check_mail(mail, client: Client):
    """The email is well formed and meant for this client."""
    message = mail.message
    assert not message.defects, message.defects
    assert message["To"].addresses[0].addr_spec == mail.recipient
    assert message["From"].addresses[0].display_name == "Maison Clients & Fils"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Subject"].strip() and message["Date"].datetime and mail.message_id
    assert f"{PORTAL}/activate?token={mail.token}" in mail.text
    assert client.account["given_name"].strip() in mail.text or client.outcome is Outcome.SAME_NAME


def take_over(environment: Environment, organization: str, mail) -> str:
    """Follows the link as the portal would; the account that is active then."""
    assert environment.inspect(mail.token).organization.organization_id == organization
    account_id = environment.activate(mail.token, PASSWORD.format(mail.message_id)).account_id
    account = environment.account_of(organization, account_id)
    assert account.email == mail.recipient
    assert state_of(account) == "ACTIVE"
    assert state_of(account.last_invitation) == "ACCEPTED"
    return account_id


def one_token(environment: Environment) -> str:
    """64 callers with one token: one wins. Looking at a link uses nothing up. Each dead link says why."""
    organization = environment.organization("tokens")
    account, mail = invite(environment, organization, "Wanda Winner", "winner@tokens.example")

    statuses = Counter(at_once(lambda _: environment.inspect(mail.token).status, range(1000)))
    assert len(statuses) == 1, statuses
    answers = Counter(at_once(lambda n: outcome(environment.activate, mail.token, PASSWORD.format(n)), range(64), 64))
    assert answers == {"OK": 1, "TOKEN_USED": 63}, answers
    assert state_of(environment.account_of(organization, account.account_id)) == "ACTIVE"

    superseded, first = invite(environment, organization, "Sven Second", "second@tokens.example")
    resend(environment, organization, superseded.account_id)
    environment.mailbox.wait_for({first.recipient}, EMAIL_SECONDS, each=2)
    # The report that the second email has left is under way.
    wait_until(lambda: status_of(environment.inspect(first.token)) == "SUPERSEDED", EMAIL_SECONDS, "both links work")
    assert outcome(environment.activate, first.token, PASSWORD) == "TOKEN_SUPERSEDED"

    revoked, withdrawn = invite(environment, organization, "Rita Revoked", "revoked@tokens.example")
    environment.accounts.call(
        f"{INVITATIONS}/RevokeInvitation", organization_id=organization,
        invitation_id=revoked.last_invitation.invitation_id, request_id=new_id(),
    )
    assert outcome(environment.activate, withdrawn.token, PASSWORD) == "TOKEN_REVOKED"
    assert outcome(environment.activate, secrets.token_urlsafe(32), PASSWORD) == "TOKEN_UNKNOWN"
    return "64 activations of one token: 1 succeeded; 1,000 inspections used nothing up"


def one_email(environment: Environment) -> str:
    """Fifty creates of one email at once: one account, 49 clear answers."""
    organization = environment.organization("race")
    given_names = [chr(ord("A") + number // 26) + chr(ord("a") + number % 26) for number in range(50)]

    def create(given_name: str):
        environment.create(organization, {"given_name": given_name, "family_name": "Racer", "email": "one@race.example"})

    answers = Counter(at_once(lambda name: outcome(create, name), given_names, 50))
    assert answers == {"OK": 1, "EMAIL_IN_ORGANIZATION": 49}, answers
    assert len(environment.all_accounts(organization)) == 1
    return "50 creates of one email: 1 account"


def somebody_known_elsewhere(environment: Environment) -> str:
    """A client of one organization is asked before another one learns more than its staff entered."""
    first, second = environment.organization("first-home"), environment.organization("second-home")
    login = {"email": "elsa@elsewhere.example", "password": PASSWORD.format("elsewhere")}
    _, mail = invite(environment, first, "Elsa Elsewhere", login["email"])
    environment.activate(mail.token, login["password"])

    def authenticate(password: str):
        return environment.accounts.call(
            f"{ACTIVATION}/Authenticate", organization_id=first, **login | {"password": password}
        )

    assert outcome(authenticate, login["password"]) == "OK"
    assert outcome(authenticate, "not that one at all") == "CREDENTIALS_INVALID"

    account = named("Elsa Elsewhere") | {"email": login["email"]}
    assert outcome(environment.create, second, account) == "EMAIL_ON_PLATFORM"
    created = environment.create(second, account, on_platform_match="PLATFORM_MATCH_POLICY_REQUEST_SHARE")
    assert state_of(created) == "SHARE_REQUESTED" and not created.profile_shared
    _, request = environment.mailbox.wait_for({login["email"]}, EMAIL_SECONDS, each=2)
    assert f"{PORTAL}/share?token={request.token}" in request.text
    assert purpose_of(environment.inspect(request.token)) == "SHARE_REQUEST"
    assert outcome(environment.activate, request.token, PASSWORD) == "TOKEN_UNKNOWN"
    return "refused, then asked by email"


def sixth_email_of_the_day(environment: Environment) -> str:
    """The sixth email to a recipient waits, with its exact time; others are not delayed.

    Meanwhile the fifth link works, and asking again makes no seventh."""
    organization = environment.organization("limits")
    account, _ = invite(environment, organization, "Theo Throttled", "sixth@limits.example")
    for number in range(2, 6):
        resend(environment, organization, account.account_id)
        environment.mailbox.wait_for({"sixth@limits.example"}, EMAIL_SECONDS, each=number)
    sixth = resend(environment, organization, account.account_id)

    def invitation():
        request = {"organization_id": organization, "invitation_id": sixth.invitation_id}
        return environment.accounts.call(f"{INVITATIONS}/GetInvitation", **request).invitation

    wait_until(lambda: state_of(invitation()) == "THROTTLED", EMAIL_SECONDS, "the sixth email does not wait")
    listed = environment.deliveries.call(
        f"{DELIVERIES}/ListDeliveries", organization_id=organization, invitation_id=sixth.invitation_id
    )
    (delivery,) = listed.deliveries
    assert state_of(delivery) == "THROTTLED"
    assert delivery.next_attempt_time.ToNanoseconds() == invitation().throttled_until.ToNanoseconds()
    wait = invitation().throttled_until.ToDatetime() - sixth.create_time.ToDatetime()
    assert timedelta(hours=23) < wait <= timedelta(hours=24), wait
    for _ in range(10):
        again = send(environment, organization, account.account_id)
        assert again.already_waiting and again.invitation == invitation()
    fifth = environment.mailbox.to({"sixth@limits.example"})[-1]
    assert status_of(environment.inspect(fifth.token)) == "VALID"

    start = time.monotonic()
    invite(environment, organization, "Paula Prompt", "prompt@limits.example")
    assert len(environment.mailbox.to({"sixth@limits.example"})) == 5
    return f"the sixth waits {wait}, somebody else's came after {time.monotonic() - start:.1f} s"


def broker_down(environment: Environment) -> str:
    """Without the broker staff go on working; the emails come when it is back."""
    organization = environment.organization("outage")
    names = ["Ada Anker", "Bo Brandt", "Cleo Castell", "Dag Drews", "Eike Ernst"]
    recipients = {f"{name.split()[0].lower()}@outage.example" for name in names}
    environment.broker.stop()
    try:
        for name, recipient in zip(names, sorted(recipients)):
            account = environment.create(organization, named(name) | {"email": recipient})
            assert state_of(account) == "INVITED"
        assert not environment.mailbox.to(recipients)
    finally:
        environment.broker.start()
    start = time.monotonic()
    mails = environment.mailbox.wait_for(recipients, EMAIL_SECONDS)
    assert len(mails) == len(names)
    return f"{len(mails)} emails, the last {time.monotonic() - start:.1f} s after the broker was back"


def killed_twice(environment: Environment) -> str:
    """Both services are killed in the middle of 2,000 creates; nothing is lost and nobody gets two emails."""
    organization = environment.organization("crash")
    total, kills = 2000, (500, 1200)
    acknowledged = {}

    def create_at_last(number: int):
        """Repeats the call with its request id until it is answered, as callers are told to."""
        account = {"given_name": word(number), "family_name": word(number * 7919 + 13), "email": recipient(number)}
        request_id = new_id()
        deadline = time.monotonic() + 3 * EMAIL_SECONDS
        while True:
            try:
                created = environment.create(organization, account, request_id=request_id)
                break
            except Refused as refused:
                assert refused.is_passing and time.monotonic() < deadline, refused
                time.sleep(0.2)
        acknowledged[created.account_id] = created.email

    def recipient(number: int) -> str:
        return f"client.{number}@crash.example"

    with in_background(create_at_last, range(total)) as creates:
        for kill in kills:
            wait_until(lambda: len(acknowledged) >= kill, 3 * EMAIL_SECONDS, "creating takes too long")
            environment.kill_services()
            environment.start_services()
        for create in creates:
            create.result()

    accounts = environment.all_accounts(organization)
    assert {account.account_id for account in accounts} == set(acknowledged), "accounts differ from the answers"
    assert len(accounts) == total
    mails = environment.mailbox.wait_for({recipient(number) for number in range(total)}, 3 * EMAIL_SECONDS)
    wait_until(lambda: not any(environment.broker.queue_lengths().values()), EMAIL_SECONDS, "a queue is not empty")
    mails = environment.mailbox.to({mail.recipient for mail in mails})
    # A crash after the final dot may repeat an email: then with the Message-ID that it had.
    assert len({(mail.recipient, mail.message_id) for mail in mails}) == total, "two emails for one invitation"
    return f"{total} accounts, {len(mails)} emails, {len(mails) - total} of them repeated after a kill"


def no_secret_anywhere(environment: Environment) -> str:
    """No raw token and no password in a database, in the broker's files or in a log."""
    environment.secrets |= {mail.token for mail in environment.mailbox.mails}
    places = environment.places()
    assert_nowhere(environment.secrets, places)
    size = sum(len(place.content) for place in places) / 1_000_000
    return f"{len(environment.secrets)} secrets looked for in {size:.0f} MB"


def invite(environment: Environment, organization: str, name: str, email: str):
    """Creates an account and waits for its email; both."""
    account = environment.create(organization, named(name) | {"email": email})
    (mail,) = environment.mailbox.wait_for({email}, EMAIL_SECONDS)
    return account, mail


def resend(environment: Environment, organization: str, account_id: str):
    """Invites again once the email before has left; the new invitation."""

    def has_left() -> bool:
        return state_of(environment.account_of(organization, account_id).last_invitation) == "SENT"

    wait_until(has_left, EMAIL_SECONDS, "an email waits")
    result = send(environment, organization, account_id)
    assert not result.already_waiting
    return result.invitation


def send(environment: Environment, organization: str, account_id: str):
    """What became of a request to invite."""
    answer = environment.accounts.call(
        f"{INVITATIONS}/SendInvitation", organization_id=organization, account_id=account_id, request_id=new_id()
    )
    (result,) = answer.results
    return result


def named(name: str) -> dict:
    given_name, _, family_name = name.partition(" ")
    return {"given_name": given_name, "family_name": family_name}


def word(number: int) -> str:
    """A name of its own for each number, pronounceable and unlike its neighbours'."""
    syllables = ["ba", "ki", "lu", "me", "no", "pra", "sti", "tu", "ve", "zo", "cha", "fli", "gu", "hje", "dro", "qua"]
    number = number * 40_503 % 65_536
    return "".join(syllables[number >> shift & 15] for shift in (0, 4, 8, 12)).capitalize()


def state_of(resource) -> str:
    return enum_name(resource, "state")


def status_of(inspection) -> str:
    return enum_name(inspection, "status")


def purpose_of(inspection) -> str:
    return enum_name(inspection, "purpose")


def enum_name(message, field: str) -> str:
    """Name of an enum field's value without its prefix."""
    described = message.DESCRIPTOR.fields_by_name[field].enum_type
    prefix = described.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return described.values_by_number[getattr(message, field)].name.removeprefix(prefix)


# The search comes last, when everything has happened that leaves traces.
ALL = [
    five_hundred_clients,
    one_token,
    one_email,
    somebody_known_elsewhere,
    sixth_email_of_the_day,
    broker_down,
    killed_twice,
    no_secret_anywhere,
]
