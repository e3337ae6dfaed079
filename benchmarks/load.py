"""One measurement: wrk against a running server, whose CPU time is read before and after."""

import json
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.servers import LOAD_CORES, Refused, Running, pinned, seeded

SCRIPT = Path(__file__).with_name("load.lua")
CONNECTIONS = 16
OPERATIONS = ("read", "list", "create", "patch", "delete")
# More than any server reaches. If it does not suffice, the measurement is refused.
DELETIONS_PER_SECOND = 12_000
SYNCED_CREATES = 20


def wrk(port: int, seconds: int, operation: str, first: int | str, count: int, cores: list[int]) -> dict[str, Any]:
    """Run wrk and return what load.lua reports: requests, errors, latencies in microseconds."""
    options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(SCRIPT)]
    command = ["wrk", *options, f"http://127.0.0.1:{port}", "--", operation, str(first), str(count)]
    done = subprocess.run([*pinned(cores), *command], capture_output=True, text=True, check=True)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if not found:
        raise RuntimeError(f"no result from wrk:\n{done.stdout}{done.stderr}")
    report: dict[str, Any] = json.loads(found[1])
    return report


def warm_up(running: Running, cores: list[int] = LOAD_CORES) -> None:
    """Load a started server with a mix of operations for a second, the shortest time that wrk takes."""
    wrk(running.port, 1, "warm", 1, running.database.rows, cores)
    running.rest()
    running.database.reset()


def measure(
    running: Running, operation: str, seconds: int, query: str = "", cores: list[int] = LOAD_CORES
) -> dict[str, float]:
    """Load a server with one operation, then reset the database.

    Returns CPU in microseconds per request, throughput in requests per second, p50 and p99 in milliseconds, and cores
    in use. Raises Refused if a response was not a success, or if fewer rows were written than writes answered.
    """
    database = running.database
    first, count = 1, database.rows
    if operation == "delete":
        count = seconds * DELETIONS_PER_SECOND
        first = database.add(count)
    before, cpu = database.added(), running.cpu()
    report = wrk(running.port, seconds, operation, query or first, count, cores)
    cpu = running.cpu() - cpu
    running.rest()
    written = abs(database.added() - before) if operation in ("create", "delete") else report["requests"]
    if report["errors"] or report["refused"] or not report["requests"]:
        raise Refused(f"{running.server.name}, {operation}: {report}")
    if written < report["requests"]:
        raise Refused(f"{running.server.name}, {operation}: {report['requests']} answers, {written} rows")
    database.reset()
    return {
        "cpu": cpu / report["requests"] * 1e6,
        "throughput": report["requests"] / report["duration"] * 1e6,
        "p50": report["p50"] / 1e3,
        "p99": report["p99"] / 1e3,
        "busy": cpu / report["duration"] * 1e6,
    }


def check(running: Running) -> None:
    """Go through the five operations. Raise Refused at the first response that differs from the contract."""
    database = running.database
    new = {"name": "Zoë", "secret_name": "Ann"}
    status, created = running.ask("POST", "/heroes/", new)
    hero_id = created.get("id") if isinstance(created, dict) else None
    own = f"/heroes/{hero_id}"
    expected: dict[str, Any] = {"name": "Zoë", "age": None, "id": hero_id}
    if (status, created) != (200, expected) or not isinstance(hero_id, int) or hero_id <= database.rows:
        raise Refused(f"{running.server.name}: POST answers {status} {created}")
    gone = {"detail": "Hero not found"}
    table: list[tuple[str, str, Any, int, Any]] = [
        ("GET", own, None, 200, expected),
        ("GET", "/heroes/7", None, 200, seeded(7)),
        ("GET", "/heroes/", None, 200, [seeded(n) for n in range(1, 101)]),
        ("GET", "/heroes/?offset=20&limit=3", None, 200, [seeded(n) for n in (21, 22, 23)]),
        ("PATCH", own, {"age": 33}, 200, {**expected, "age": 33}),
        ("PATCH", own, {"name": "Zoe", "age": None}, 200, {**expected, "name": "Zoe"}),
        ("GET", own, None, 200, {**expected, "name": "Zoe"}),
        ("DELETE", own, None, 200, {"ok": True}),
        ("GET", own, None, 404, gone),
        ("PATCH", own, {"age": 1}, 404, gone),
        ("DELETE", own, None, 404, gone),
    ]
    for method, path, body, wanted_status, wanted in table:
        status, content = running.ask(method, path, body)
        if (status, content) != (wanted_status, wanted):
            raise Refused(f"{running.server.name}: {method} {path} answers {status} {str(content)[:200]}")
    secret = database.execute("SELECT count(*) FROM hero WHERE id > :rows", rows=database.rows)[0]
    if secret:
        raise Refused(f"{running.server.name}: the deleted hero is still in the table")


def syncs_per_create(running: Running) -> float | None:
    """Return the number of fsyncs per create, or None if strace is missing or the database is PostgreSQL."""
    if not shutil.which("strace") or not running.database.sqlite:
        return None
    with tempfile.NamedTemporaryFile("r") as output:
        pids = [option for process in running.processes() for option in ("-p", str(process.pid))]
        trace = ["strace", "-f", "-e", "trace=fsync,fdatasync", "-o", output.name, *pids]
        strace = subprocess.Popen(trace, stderr=subprocess.PIPE)
        assert strace.stderr is not None
        if b"attached" not in strace.stderr.readline():
            strace.kill()
            return None
        time.sleep(0.2)
        for _ in range(SYNCED_CREATES):
            running.ask("POST", "/heroes/", {"name": "New", "secret_name": "Nobody"})
        strace.send_signal(signal.SIGINT)
        strace.wait()
        running.database.reset()
        return len(re.findall(r"\b(?:fsync|fdatasync)\(", output.read())) / SYNCED_CREATES
