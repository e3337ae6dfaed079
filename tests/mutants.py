"""Run all tests on the mutants that `mutmut run` did not kill, list those that no test notices, and print the score.

mutmut runs the tests that call a changed function. Code that runs when a module is imported, or once for a module's
tests, is called by one of them at most, so a mutant that survives there may yet be noticed by another test.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from configparser import ConfigParser
from itertools import repeat
from pathlib import Path

from tests.constants import ROOT
from tests.databases import running_postgres

LEAST = 85  # percent
FOLDER = ROOT / "mutants"
KILLED = {1, 3}  # exit codes of pytest in mutmut's files: a test failed, or pytest itself


def pytest_options() -> list[str]:
    """Return the options of setup.cfg: the tests of PostgreSQL run, too."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    given = f"{config['mutmut']['pytest_add_cli_args']}\n{config['mutmut']['pytest_add_cli_args_test_selection']}"
    return ["--exitfirst", *given.split("\n"), "-k", "not (granian or gunicorn or internals)"]


def is_noticed(mutant: str, postgres: str) -> bool:
    """Return whether a test fails with a mutant, or does not end."""
    environment = os.environ | {"MUTANT_UNDER_TEST": mutant, "TEST_DATABASE_URL": postgres}
    command = [sys.executable, "-m", "pytest", *filter(None, pytest_options())]
    try:
        return subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, timeout=600).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def main() -> int:
    """Return the exit code: 1 for a score below LEAST."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, help="run the tests on as many random mutants, whatever mutmut found")
    count = parser.parse_args().sample
    codes: dict[str, int | None] = {}
    for file in FOLDER.glob("heroes/**/*.meta"):
        codes |= json.loads(file.read_text())["exit_code_by_key"]
    tried = (
        random.sample(sorted(codes), count) if count else [name for name, code in codes.items() if code not in KILLED]
    )
    with tempfile.TemporaryDirectory() as folder, running_postgres(Path(folder, "postgres")) as postgres:
        assert not is_noticed("", postgres), "the tests fail without a mutant"
        with ThreadPoolExecutor(os.cpu_count()) as processes:
            noticed = list(processes.map(is_noticed, tried, repeat(postgres)))
    survivors = sorted(name for name, found in zip(tried, noticed, strict=True) if not found)
    print(*survivors, sep="\n")
    total = count or len(codes)
    score = 100 - 100 * len(survivors) / total
    print(f"{total - len(survivors)} of {total} mutants are noticed, {score:.1f} %; at least {LEAST} % are wanted")
    return int(score < LEAST)


if __name__ == "__main__":
    sys.exit(main())
