"""`make test`: all tests, in two halves side by side, since calls in real time mostly wait.

First what is measured on an otherwise idle machine; then the calls, which are held against real time and have the
machine's first attention, and beside them, at the lowest priority, everything else. What failed is run
once more with nothing beside it. With arguments: pytest with them.
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
    codes = {"alone": subprocess.call([*PYTEST, "-m", "alone", *_cache("alone")])}
    codes |= _side_by_side()
    codes = {half: code and _once_more(half) for half, code in codes.items()}
    ended = ", ".join(f"{half} {'passed' if code == 0 else 'failed'}" for half, code in codes.items())
    print(f"{time.monotonic() - begun:.0f} s in all: {ended}")
    return max(codes.values())


def _side_by_side() -> dict[str, int]:
    REPORT.parent.mkdir(exist_ok=True)
    others = [f"--ignore={folder}" for folder in CALLS]
    with REPORT.open("wb") as report:
        rest = subprocess.Popen(
            [*PYTEST, "-m", "not alone", *_cache("rest"), "--basetemp", "build/tmp-rest", *others],
            stdout=report, stderr=subprocess.STDOUT, preexec_fn=lambda: os.nice(19),
        )  # fmt: skip
        print(f"Everything but the calls runs beside them: {REPORT}", flush=True)
        try:
            calls = subprocess.call([*PYTEST, "-m", "not alone", *_cache("calls"), *CALLS])
            code = rest.wait()
        finally:
            rest.kill()
    sys.stdout.flush()
    sys.stdout.buffer.write(REPORT.read_bytes())
    return {"calls": calls, "rest": code}


def _once_more(half: str) -> int:
    """Real time is what a busy machine takes away: what failed is run again with nothing beside it, and then counts."""
    print(f"Once more, alone, what failed of {half}:", flush=True)
    return subprocess.call([*PYTEST, "--last-failed", "--last-failed-no-failures", "none", *_cache(half)])


def _cache(half: str) -> tuple[str, ...]:
    return "-o", f"cache_dir=build/cache-{half}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
