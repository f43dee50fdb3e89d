"""Hard use, counted: `make torture`, or `python -m tests.torture --kills 20 --formulas 1000 --files 100`.

Prints how it goes, writes its last table to docs/results/reliability.md, and exits with 1 where something was seen
that must not be. A trial is known by its seed: it can be had again.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from gploss.environment import environment, versions
from gploss.files.whole import write_text_atomic
from tests.torture import files, formulas, guard, kills
from tests.torture.tally import Tally, table

PROJECT: Final = Path(__file__).parents[2]
REPORT: Final = PROJECT / "docs/results/reliability.md"

TEXT: Final = """# Reliability

What became of runs that were killed, of formulas that are none, and of damaged files. The campaign is in
`tests/torture/`; this was made in {minutes:.0f} minutes by

    {command}

- **Kills**: `gploss compare` with two workers in a session of its own is sent a signal at a random moment, the
  parent alone or the whole group, up to twelve times a run, and resumed each time. After each, no process of it
  lives on, and its checkpoints hold the beginning of the undisturbed run's searches; at the end all tables and
  checkpoints are equal to the undisturbed run's. Outcomes count signals.
- **Formulas**: random bytes, changed formulas, words, deep, long and doubling texts, random trees. Refused is
  `ExpressionError`; what is read is printed in all ways, in bounded length, and read back.
- **Files**: sound files with flipped bits, pieces cut out, moved, overwritten or put in, cut ends, or nothing but
  noise. Refused is the documented exception. What is read of caches, checkpoints and results is what was written.
- **Faults** would be crashes, more than {seconds} s for a formula or {file_seconds} s for a file, more than 6 GiB,
  undocumented exceptions, other content, files made elsewhere, and code, processes, sockets or libraries that a
  reader of text has no business with (seen by Python's audit hook).

{table}

Machine: {machine}.
"""

#: Seconds that a trial may take.
FORMULA_SECONDS: Final = 10
FILE_SECONDS: Final = 30


def main() -> int:
    """Run the campaign and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description="Hard use, counted.")
    parser.add_argument("--kills", type=int, default=500, help="signals sent to runs")
    parser.add_argument("--formulas", type=int, default=1_000_000, help="hostile formulas")
    parser.add_argument("--files", type=int, default=10_000, help="damaged files of each kind")
    parser.add_argument("--kinds", default="", help="only kinds of files with one of these words, comma-separated")
    parser.add_argument("--seed", type=int, default=0, help="of the kills' moments")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that read")
    parser.add_argument("--no-report", action="store_true", help="leave docs/results/reliability.md alone")
    given = parser.parse_args()
    begun = time.monotonic()
    tallies: list[Tally] = []
    with tempfile.TemporaryDirectory(prefix="gploss-torture-") as name:
        folder = Path(name)
        if given.kills:
            print("kills", flush=True)
            tallies += kills.campaign(given.kills, folder, given.seed)
        if given.formulas:
            print("formulas", flush=True)
            options = {"seconds": FORMULA_SECONDS, "workers": given.workers}
            tallies.append(guard.campaign("formulas", formulas.trial, given.formulas, **options))
        wanted = [word.strip() for word in given.kinds.split(",")]
        for kind, how in files.KINDS.items():
            if given.files and any(word in kind for word in wanted):
                print(kind, flush=True)
                trial = files.trial_of(how, folder / how.name)
                # those of databases wait for others that may be writing: more of them at a time
                workers = given.workers * (4 if how.name.endswith(".sqlite") else 1)
                tallies.append(guard.campaign(kind, trial, given.files, seconds=FILE_SECONDS, workers=workers))
        faults = [f"{tally.kind}: {fault}" for tally in tallies for fault in tally.faults]
        text = TEXT.format(
            command=shlex.join(["python", "-m", "tests.torture", *sys.argv[1:]]),
            minutes=(time.monotonic() - begun) / 60,
            seconds=FORMULA_SECONDS,
            file_seconds=FILE_SECONDS,
            table=table(tallies),
            machine=", ".join(f"{key}: {value}" for key, value in (environment("cpu") | versions()).items()),
        )
        print(text)
        print("\n".join(faults), flush=True)
        if not given.no_report:
            write_text_atomic(REPORT, text)
            print(f"written to {REPORT}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
