"""Coverage-guided fuzzing, when atheris is installed: `python -m tests.fuzz stun -max_total_time=60`.

The first argument names a target of tests/fuzz/targets.py; the rest goes to libFuzzer. Seeds are written to a folder
that the run may fill; a finding is kept as `crash-…` in the working directory, to become a test.
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris")

with atheris.instrument_imports(include=["gateway"]):
    from tests.fuzz.targets import TARGETS, seeds


def main(name: str, *options: str) -> None:
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    for seed in seeds(name):
        (folder / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    atheris.Setup([sys.argv[0], str(folder), *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz {{{'|'.join(TARGETS)}}} [libFuzzer options]")
    main(*sys.argv[1:])
