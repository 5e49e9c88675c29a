"""Writes what docs/ holds of the API: `python -m gateway.api.reference docs`. A test holds the files against it.

docs/openapi.json is the whole document; in docs/api.md the parts between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from gateway.api import openapi
from gateway.api.problems import GROUPS
from gateway.api.routes import ENDPOINTS

# The document in the repository speaks of no installation.
SERVER: Final = "https://gateway.example"


def openapi_json() -> str:
    return json.dumps(openapi.document(ENDPOINTS, server_url=SERVER), indent=2, ensure_ascii=False) + "\n"


def endpoint_table() -> str:
    rows = [
        f"| `{e.method} {e.path}` | {e.summary} | {e.scope or '–'} | {'–' if e.idempotent == 'no' else e.idempotent} |"
        for e in ENDPOINTS
    ]
    return "\n".join(("| call | does | scope | Idempotency-Key |", "|---|---|---|---|", *rows))


def problem_tables() -> str:
    tables = []
    for name, problems in GROUPS.items():
        rows = [f"| `{p.code}` | {p.status} | {p.title}. {p.remedy} |" for p in problems]
        tables.append("\n".join((f"### {name}", "", "| code | status | meaning |", "|---|---|---|", *rows)))
    return "\n\n".join(tables)


def woven(text: str) -> str:
    """The page with its generated parts renewed."""
    for name, made in (("endpoints", endpoint_table()), ("problems", problem_tables())):
        head, opening, rest = text.partition(f"<!-- {name} -->")
        _, closing, tail = rest.partition(f"<!-- /{name} -->")
        assert closing, f"the page has a place for {name}"
        text = f"{head}{opening}\n\n{made}\n\n{closing}{tail}"
    return text


def main(folder: Path) -> None:
    (folder / "openapi.json").write_text(openapi_json(), encoding="utf-8")
    page = folder / "api.md"
    page.write_text(woven(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
