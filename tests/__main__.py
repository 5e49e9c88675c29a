"""`make test`: all tests, in two halves side by side, since calls in real time mostly wait.

First what is measured on an otherwise idle machine; then the calls, which are held against real time and have the
machine's first attention, and beside them, at the lowest priority, everything else. With arguments: pytest with them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

REPORT = Path("build/test-rest.txt")
CALLS = ("tests/e2e", "tests/integration", "tests/web")
PYTEST = (sys.executable, "-m", "pytest")


def main(arguments: list[str]) -> int:
    if arguments:
        return subprocess.call([*PYTEST, *arguments])
    begun = time.monotonic()
    codes = {"alone": subprocess.call([*PYTEST, "-m", "alone", "-p", "no:cacheprovider"])}
    codes |= _side_by_side()
    print(
        f"{time.monotonic() - begun:.0f} s in all. " + ", ".join(f"{half}: exit {code}" for half, code in codes.items())
    )
    return max(codes.values())


def _side_by_side() -> dict[str, int]:
    REPORT.parent.mkdir(exist_ok=True)
    others = [f"--ignore={folder}" for folder in CALLS]
    with REPORT.open("wb") as report:
        rest = subprocess.Popen(
            [*PYTEST, "-m", "not alone", "-p", "no:cacheprovider", "--basetemp", "build/tmp-rest", *others],
            stdout=report, stderr=subprocess.STDOUT, preexec_fn=lambda: os.nice(19),
        )  # fmt: skip
        print(f"Everything but the calls runs beside them: {REPORT}", flush=True)
        try:
            calls = subprocess.call([*PYTEST, "-m", "not alone", *CALLS])
            code = rest.wait()
        finally:
            rest.kill()
    sys.stdout.flush()
    sys.stdout.buffer.write(REPORT.read_bytes())
    return {"calls": calls, "rest": code}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
