"""gunicorn as another user on a read-only root: only the database's folder and /dev/shm are writable."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client import Client
from tests.constants import HERO, ROOT, public
from tests.servers import Server, free_port, wait_until

USER = 65534  # nobody
# In a mount namespace of its own: a few writable folders, the rest read-only, and no privileges.
SCRIPT = """
set -e
mount --make-rprivate /
mount --bind "$DATA" "$DATA"
mount -t tmpfs tmpfs /dev/shm
chmod 1777 /dev/shm
# Another user can't enter root's home, where pyenv has its Pythons.
case "$PYTHON_PREFIX" in /root/*)
    mount --bind "$PYTHON_PREFIX" /mnt
    mount -t tmpfs -o mode=755 tmpfs /root
    mkdir -p "$PYTHON_PREFIX"
    mount --bind /mnt "$PYTHON_PREFIX"
esac
mount -o remount,ro,bind /
for each in /tmp /var /run /home /root; do
    if mountpoint -q $each; then mount -o remount,ro,bind $each; fi
done
! touch /tmp/heroes-is-not-writable 2>/dev/null
! touch /var/tmp/heroes-is-not-writable 2>/dev/null
! touch "$PWD/heroes-is-not-writable" 2>/dev/null
exec setpriv --reuid $USER_ID --regid $USER_ID --clear-groups --no-new-privs "$@"
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A folder for the database that another user reaches, unlike pytest's own."""
    folder = Path("/var/tmp", f"heroes-{os.getpid()}")
    folder.mkdir(mode=0o755)
    os.chown(folder, USER, USER)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(
    (os.getuid() != 0 or not shutil.which("unshare")) and "CI" not in os.environ, reason="needs root, and unshare"
)
def test_gunicorn_runs_on_a_read_only_root(data: Path, tmp_path: Path) -> None:
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "DATA": str(data),
        "USER_ID": str(USER),
        "PYTHON_PREFIX": sys.base_prefix,
        "DATABASE_URL": f"sqlite:///{data}/database.db",
        "BIND": f"127.0.0.1:{port}",
        "WEB_CONCURRENCY": "1",
        "METRICS": "on",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", sys.executable, "-m", "gunicorn", "wsgi:app"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
    server = Server(process, "127.0.0.1", port, tmp_path / "log")
    try:
        wait_until(lambda: server.answers() or process.poll() is not None, 30)
        assert process.poll() is None, server.log.read_text()
        assert os.stat(f"/proc/{process.pid}").st_uid == USER
        client = Client(port, keep_alive=False)
        assert client.send("POST", "/heroes/", HERO).json == public()
        assert client.send("GET", "/health/ready").status == 200
        assert client.send("GET", "/metrics").status == 200
        assert server.stop() == 0
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()
