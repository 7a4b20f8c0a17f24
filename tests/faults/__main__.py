"""A matrix of faults: each row is a part of the system that fails while two instances of XP Graph are asked and written to. Everything
runs in temporary folders and on loopback.

    python3 tests/faults xp                the program of XP Graph; needs Python 3.9, PostgreSQL, Redis, PgBouncer, nginx, libfaketime
    python3 tests/faults xp --long         all rows, with longer phases
    python3 tests/faults xp --only half-open read-only
    python3 tests/faults xp --sabotage     each row with its defence off: it has to be seen to fail

What must hold in each row: nothing that was acknowledged is lost, nothing is there twice, what was refused as not stored is not
there, no read is older than what was acknowledged before it was sent, requests fail with the row's codes only, none takes longer
than the row allows, and all is well again soon enough.

Exit codes: 0 all of it holds, 1 something does not, 2 wrong usage."""

import argparse
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "deploy/drills"))

# The rows are known by being imported.
import postgres  # noqa: E402
import rows_postgres  # noqa: E402,F401
import rows_redis  # noqa: E402,F401
import rows_instances  # noqa: E402,F401
import table  # noqa: E402
from row import ROWS  # noqa: E402
from run import run_row  # noqa: E402
from topology import Template  # noqa: E402


def main():
    options = parse()
    if options.list:
        for row in ROWS:
            print(f"{row.name:22} {'' if row.is_short else '(--long) '}{row.what}; sabotage ({row.sabotage.kind}): {row.sabotage.what}")
        return 0
    # Whoever ends this by SIGTERM does not leave servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    begun, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="xp-faults-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        print(f"{postgres.version()}, seed {options.seed}", flush=True)
        template = Template(folder, str(options.program))
        for row in options.rows:
            results.append(run_row(row, template, options))
            table.say(results[-1], options.sabotage)
    table.show(results, options.sabotage)
    wrong = [result for result in results if not table.is_well(result, options.sabotage)]
    not_run = [result.row.name for result in results if result.not_run]
    print(f"faults: {len(results)} rows, {len(wrong)} with deviations, {len(not_run)} not run; {time.monotonic() - begun:.0f} s")
    return 1 if wrong else 0


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=Path, nargs="?", help="the program `xp`")
    parser.add_argument("--long", action="store_true", help="all rows, with longer phases")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="these rows")
    parser.add_argument("--list", action="store_true", help="what rows there are")
    parser.add_argument("--sabotage", action="store_true", help="with the defence of each row off: fails where a row does not see that")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="which two faults come at once")
    parser.add_argument("--rate", type=float, default=150, help="requests a second")
    parser.add_argument("--logs", action="store_true", help="the last lines of all logs of a row with deviations")
    options = parser.parse_args()
    if not options.list and not options.program:
        parser.error("the program is missing")
    unknown = set(options.only or ()) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"there is no row {', '.join(sorted(unknown))}; --list names them")
    options.program = options.program and options.program.resolve()
    options.rows = [row for row in ROWS if (row.name in options.only if options.only else options.long or row.is_short)]
    options.before, options.after = (5, 8) if options.long else (2, 2.5)
    return options


if __name__ == "__main__":
    sys.exit(main())
