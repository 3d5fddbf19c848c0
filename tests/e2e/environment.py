"""Both services at work: account-svc, notify-svc, broker, databases and a mailbox."""

import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mailbox_server import Mailbox
from processes import Broker, Service, generate_keys
from rpc import Connection, Refused
from secrets_search import Place

ACCOUNTS = "usher.account.v1.AccountService"
INVITATIONS = "usher.account.v1.InvitationService"
ACTIVATION = "usher.account.v1.ActivationService"
DELIVERIES = "usher.notify.v1.DeliveryService"

PORTAL = "https://portal.example"
CALLERS = 16


class Environment:
    """Everything that a scenario needs, up and running."""

    def __init__(self, directory: Path):
        self.directory = directory
        # What may be found nowhere: raw tokens from emails, and passwords that clients chose.
        self.secrets: set[str] = set()

    def __enter__(self):
        with ExitStack() as stack:
            self.move_in(stack)
            self.stack = stack.pop_all()
        return self

    def move_in(self, stack: ExitStack):
        public_key, private_key = generate_keys()
        self.broker = Broker()
        self.mailbox = stack.enter_context(Mailbox())
        self.account = Service("account-svc", self.directory, {
            "TOKEN_PUBLIC_KEY": public_key,
            "PORTAL_ORIGINS": PORTAL,
        })
        self.notify = Service("notify-svc", self.directory, {
            "TOKEN_PRIVATE_KEY": private_key,
            "SMTP_URL": f"smtp://127.0.0.1:{self.mailbox.port}",
            "SMTP_EHLO_NAME": "usher.example",
            "MAIL_FROM": "no-reply@usher.example",
            # The day's limit is under test here; the pause between two emails would only take time.
            "RECIPIENT_GAP": "0s",
            # What a killed process was sending is taken over after the lease, which has to outlast a send.
            "SEND_LEASE": "8s",
            "SMTP_COMMAND_TIMEOUT": "1s",
            "SMTP_DATA_TIMEOUT": "3s",
            "UNKNOWN_DELAY": "1s",
            "RETRY_BASE": "1s",
        })
        for service in (self.notify, self.account):
            stack.callback(service.stop)
            service.migrate()
            service.start()
        self.accounts = Connection(self.account.address)
        self.deliveries = Connection(self.notify.address)
        stack.callback(self.accounts.close)
        stack.callback(self.deliveries.close)

    def __exit__(self, *_):
        self.stack.close()

    def kill_services(self):
        self.account.kill()
        self.notify.kill()

    def start_services(self):
        self.account.start()
        self.notify.start()

    def organization(self, slug: str) -> str:
        """A new organization; its id."""
        created = self.accounts.call(
            "usher.account.v1.OrganizationService/CreateOrganization",
            organization={"slug": slug, "display_name": f"Maison {slug.title()} & Fils", "portal_url": PORTAL},
            request_id=new_id(),
        )
        return created.organization.organization_id

    def create(self, organization_id: str, account: dict, **options):
        """Creates an account; the answer's account. Raises Refused."""
        request = {"organization_id": organization_id, "account": account, "request_id": new_id()} | options
        return self.accounts.call(f"{ACCOUNTS}/CreateAccount", **request).account

    def account_of(self, organization_id: str, account_id: str):
        request = {"organization_id": organization_id, "account_id": account_id}
        return self.accounts.call(f"{ACCOUNTS}/GetAccount", **request).account

    def inspect(self, token: str):
        return self.accounts.call(f"{ACTIVATION}/InspectToken", token=token)

    def activate(self, token: str, password: str):
        """Takes an account over. Raises Refused."""
        self.secrets |= {token, password}
        request = {"token": token, "password": password, "request_id": new_id()}
        return self.accounts.call(f"{ACTIVATION}/ActivateAccount", **request)

    def all_accounts(self, organization_id: str) -> list:
        """Every account of an organization, page by page."""
        accounts, page_token = [], ""
        while True:
            page = self.accounts.call(
                f"{ACCOUNTS}/ListAccounts", organization_id=organization_id, page_size=100, page_token=page_token
            )
            accounts += page.accounts
            page_token = page.next_page_token
            if not page_token:
                return accounts

    def places(self) -> list[Place]:
        """Everything that the environment keeps: databases, the broker's files, logs."""
        kept = [
            Place("account-svc's database", self.account.dump(), b"invitation"),
            Place("notify-svc's database", self.notify.dump(), b"deliver"),
            Place("account-svc's log", self.account.log.read_bytes(), b"account"),
            Place("notify-svc's log", self.notify.log.read_bytes(), b"notify"),
        ]
        broker = b"\n".join(path.read_bytes() for path in self.broker.files())
        return [*kept, Place("RabbitMQ's files", broker, b"invitation.requested.v1")]


@contextmanager
def in_background(function, arguments: list, callers: int = CALLERS):
    """Calls the function with each argument, many at a time; the futures in the order of the arguments."""
    with ThreadPoolExecutor(callers) as pool:
        futures = [pool.submit(function, argument) for argument in arguments]
        try:
            yield futures
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def at_once(function, arguments: list, callers: int = CALLERS) -> list:
    """Like in_background, and waits; the answers in the order of the arguments."""
    with in_background(function, arguments, callers) as futures:
        return [future.result() for future in futures]


def outcome(function, *arguments) -> str:
    """`OK`, or the reason of the refusal."""
    try:
        function(*arguments)
    except Refused as refused:
        return refused.reason
    return "OK"


def new_id() -> str:
    return str(uuid.uuid4())
