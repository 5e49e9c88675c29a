"""Compiles the C sources of this folder into build/, once for each version of their text."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
BUILD: Final = HERE.parent / "build" / "loadtests"
SOURCES: Final = {"blast": ("blast.c", "stun.c", "stun.h"), "reflector": ("reflector.c",)}
FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra")


def has_compiler() -> bool:
    return shutil.which("cc") is not None


def program(name: str) -> Path:
    """Path of the compiled program. Raises RuntimeError with the compiler's words when it cannot be made."""
    sources = [HERE / source for source in SOURCES[name]]
    digest = sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    target = BUILD / f"{name}-{digest}"
    if not target.exists():
        BUILD.mkdir(parents=True, exist_ok=True)
        inputs = [str(source) for source in sources if source.suffix == ".c"]
        made = subprocess.run(["cc", *FLAGS, "-o", str(target), *inputs], capture_output=True, text=True, check=False)
        if made.returncode:
            raise RuntimeError(f"{name} does not compile: {made.stderr.strip()}")
    return target
