"""PgBouncer with the configuration in deploy/, in front of a new database with its own role."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.constants import ROOT
from tests.databases import new_database
from tests.servers import free_port, wait_until
from tests.soak.proxy import required

PASSWORD = "dummy"
FOLDERS = ("/var/run/postgresql", "/var/log/postgresql", "/etc/pgbouncer")
TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")


def execute(url: str, *statements: str) -> None:
    """Execute statements, each in its own transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


@dataclass
class PgBouncer:
    """PgBouncer in transaction mode. `role` owns the database `name`, which `direct` reaches as a superuser."""

    folder: Path
    direct: str
    role: str
    name: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The URL of the database through PgBouncer, without parameters."""
        return f"postgresql://{self.role}:{PASSWORD}@127.0.0.1:{self.port}/{self.name}"

    def configure(self, replaced: Mapping[str, str]) -> None:
        """Write deploy/pgbouncer.ini with this instance's addresses and paths and the strings of `replaced`."""
        server = conninfo_to_dict(self.direct)
        addresses = {
            "heroes = host=10.0.0.5 port=5432": f"{self.name} = host={server['host']} port={server.get('port', 5432)}",
            "listen_port = 6432": f"listen_port = {self.port}",
        }
        text = (ROOT / "deploy" / "pgbouncer.ini").read_text()
        for old, new in (addresses | dict.fromkeys(FOLDERS, str(self.folder)) | dict(replaced)).items():
            assert old in text
            text = text.replace(old, new)
        (self.folder / "pgbouncer.ini").write_text(text)
        (self.folder / "userlist.txt").write_text(f'"{self.role}" "{PASSWORD}"\n')

    def start(self) -> None:
        """Start it and wait until it listens."""
        command = [required("pgbouncer"), "--quiet", str(self.folder / "pgbouncer.ini")]
        owner = self.folder.owner() if os.getuid() == 0 else None  # it refuses to run as root
        self.process = subprocess.Popen(command, user=owner)
        wait_until(lambda: self.listens() or (self.process and self.process.poll() is not None))
        assert self.process.poll() is None, (self.folder / "pgbouncer.log").read_text()

    def listens(self) -> bool:
        """Return whether it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 5).close()
        except OSError:
            return False
        return True

    def stop(self) -> None:
        """Stop it and close its connections at once."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def set_timeouts(self, value: str) -> None:
        """Set the role's timeouts, as deploy/pgbouncer.ini advises."""
        execute(self.direct, *(f"ALTER ROLE {self.role} SET {name} = '{value}'" for name in TIMEOUTS))


@contextmanager
def running_pgbouncer(postgres: str, replaced: Mapping[str, str]) -> Iterator[PgBouncer]:
    """Run PgBouncer in front of a new database on the server at `postgres` during the block."""
    required("pgbouncer")
    role = f"heroes_{uuid.uuid4().hex}"
    direct = new_database(postgres)
    name = conninfo_to_dict(direct)["dbname"]
    execute(
        postgres,
        f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'",
        f"ALTER DATABASE {name} OWNER TO {role}",
    )
    with tempfile.TemporaryDirectory(prefix="heroes-pgbouncer-") as folder:
        pooler = PgBouncer(Path(folder), make_conninfo(direct), role, str(name))
        pooler.configure(replaced)
        if os.getuid() == 0:
            # PgBouncer has to run as a user that may open the server's socket.
            host = Path(str(conninfo_to_dict(direct)["host"]))
            user = host.owner() if host.is_absolute() else "nobody"
            for path in (pooler.folder, *pooler.folder.iterdir()):
                shutil.chown(path, user)
        try:
            pooler.start()
            yield pooler
        finally:
            pooler.stop()
            execute(postgres, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {role}")
