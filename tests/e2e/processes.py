"""The two services under test as processes, and the servers that they stand on."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAMS = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
ROLES = ROOT / "deploy" / "postgres" / "roles.sql"
START_SECONDS = 30
STOP_SECONDS = 40


class Database:
    """A new database on the server of this run, owned and used by plain logins."""

    def __init__(self, service: str):
        server = os.environ["DATABASE_URL"]
        name = f"usher_{service}"
        subprocess.run(["psql", server, "-qX", "-v", "ON_ERROR_STOP=1", "-f", ROLES], check=True)
        subprocess.run(["psql", server, "-qXc", f"CREATE DATABASE {name} OWNER usher_owner"], check=True)
        address = urllib.parse.urlsplit(server)
        host = address.netloc.rpartition("@")[2]
        self.admin_url = address._replace(path=f"/{name}").geturl()
        self.owner_url = address._replace(netloc=f"usher_owner@{host}", path=f"/{name}").geturl()
        self.service_url = address._replace(netloc=f"{service}_login@{host}", path=f"/{name}").geturl()


class Service:
    """A service with a database of its own, `serve` on free ports that it keeps over restarts."""

    def __init__(self, name: str, directory: Path, settings: dict):
        self.name = name
        self.program = PROGRAMS / name
        self.log = directory / f"{name}.log"
        self.database = Database(name.replace("-svc", ""))
        self.address = f"127.0.0.1:{free_port()}"
        self.admin_address = f"127.0.0.1:{free_port()}"
        self.environment = os.environ | settings | {
            "DATABASE_URL": self.database.service_url,
            "GRPC_LISTEN": self.address,
            "ADMIN_LISTEN": self.admin_address,
            "ALLOW_UNAUTHENTICATED": "true",
            "PORTAL_ORIGINS": "https://portal.example",
        }
        self.process = None

    def migrate(self):
        environment = self.environment | {"DATABASE_URL": self.database.owner_url}
        with self.log.open("ab") as log:
            subprocess.run([self.program, "migrate"], env=environment, stdout=log, stderr=log, check=True)

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_until(self.is_ready, START_SECONDS, f"{self.name} is not ready\n{self.end_of_log()}")

    def is_ready(self) -> bool:
        """What the service says of itself."""
        if self.process.poll() is not None:
            raise AssertionError(f"{self.name} ended by itself:\n{self.end_of_log()}")
        try:
            urllib.request.urlopen(f"http://{self.admin_address}/readyz", timeout=2).close()
            return True
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self):
        """`kill -9`: nothing is put in order."""
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Asks the service to stop. It has to drain and end well by itself."""
        if not self.process or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not stop within {STOP_SECONDS} s") from None
        assert code == 0, f"{self.name} ended with {code}:\n{self.end_of_log()}"

    def end_of_log(self) -> str:
        """What is worth reading when something failed: warnings, errors and panics."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join([line for line in lines if '"level":"INFO"' not in line][-20:])

    def dump(self) -> bytes:
        """Everything that the service keeps in its database."""
        return subprocess.run(["pg_dump", self.database.admin_url], stdout=subprocess.PIPE, check=True).stdout


class Broker:
    """The private RabbitMQ that tests/servers started for this run."""

    def __init__(self):
        self.program = os.environ["RABBITMQCTL"]
        self.data = Path(os.environ["RABBITMQ_DATA"])

    def stop(self):
        subprocess.run([self.program, "-q", "stop_app"], check=True)

    def start(self):
        subprocess.run([self.program, "-q", "start_app"], check=True)

    def queue_lengths(self) -> dict[str, int]:
        listed = subprocess.run(
            [self.program, "-q", "list_queues", "--no-table-headers", "name", "messages"],
            stdout=subprocess.PIPE, text=True, check=True,
        )
        return {name: int(length) for name, length in (line.split() for line in listed.stdout.splitlines())}

    def files(self) -> list[Path]:
        """Everything that RabbitMQ keeps on disk."""
        return [path for path in self.data.parent.rglob("*") if path.is_file()]


def generate_keys() -> tuple[str, str]:
    """The public and the private key for sealed tokens."""
    command = [PROGRAMS / "notify-svc", "generate-key"]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    values = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    return values["TOKEN_PUBLIC_KEY"], values["TOKEN_PRIVATE_KEY"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(condition, seconds: float, complaint: str):
    """Waits until the condition holds; it is asked again every 50 ms."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(complaint)
        time.sleep(0.05)
