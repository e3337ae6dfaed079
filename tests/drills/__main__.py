"""Run the drills and print a line for each; exit with 1 if one finds a problem."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.drills import crash, failover, partition, patroni, race, replicas, starts
from tests.drills.service import LeftOut

DRILLS = {
    "crash": crash.run,
    "race": race.run,
    "failover": failover.run,
    "partition": partition.run,
    "patroni": patroni.run,
    "replicas": replicas.run,
    "starts": starts.run,
}


def main() -> int:
    """Run the drills that the command line names, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", metavar="drill", help=f"any of {', '.join(DRILLS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="run a short form of each")
    arguments = parser.parse_args()
    if unknown := set(arguments.drills) - set(DRILLS):
        parser.error(f"no such drill: {', '.join(sorted(unknown))}")

    failed = False
    for name in arguments.drills or DRILLS:
        with tempfile.TemporaryDirectory(prefix=f"heroes-{name}-", ignore_cleanup_errors=True) as folder:
            try:
                for figures, problems in DRILLS[name](Path(folder), arguments.quick):
                    verdict = f"{len(problems)} PROBLEMS" if problems else "nothing lost"
                    print(f"{name}: {figures}; {verdict}", flush=True)
                    for problem in problems[:10]:
                        print(f"  {problem}", flush=True)
                    failed |= bool(problems)
            except LeftOut as reason:
                print(f"{name}: left out, it {reason}", flush=True)
    return int(failed)


sys.exit(main())
