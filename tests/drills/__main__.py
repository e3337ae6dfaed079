"""Runs the drills and prints a line for each; the exit code is 1 where anything was lost."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.drills import crash, failover, partition, race, starts
from tests.drills.service import LeftOut

DRILLS = {
    "crash": crash.run,
    "race": race.run,
    "failover": failover.run,
    "partition": partition.run,
    "starts": starts.run,
}


def main() -> int:
    """Runs what the command line names: the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", metavar="drill", help=f"all, or some of: {', '.join(DRILLS)}")
    parser.add_argument("--quick", action="store_true", help="a short form of each")
    given = parser.parse_args()
    if unknown := set(given.drills) - set(DRILLS):
        parser.error(f"no such drill: {', '.join(sorted(unknown))}")

    lost = False
    for name in given.drills or DRILLS:
        with tempfile.TemporaryDirectory(prefix=f"heroes-{name}-", ignore_cleanup_errors=True) as folder:
            try:
                for figures, problems in DRILLS[name](Path(folder), given.quick):
                    verdict = f"{len(problems)} PROBLEMS" if problems else "nothing lost"
                    print(f"{name}: {figures}; {verdict}", flush=True)
                    for problem in problems[:10]:
                        print(f"  {problem}", flush=True)
                    lost |= bool(problems)
            except LeftOut as reason:
                print(f"{name}: left out, it {reason}", flush=True)
    return int(lost)


sys.exit(main())
