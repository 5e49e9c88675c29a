from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway import errors
from gateway.api.problems import PROBLEMS, describe, status_of
from gateway.errors import Bug, GatewayError, InvalidRequest, NotFound, Unauthorized

PACKAGE = Path(gateway.__file__).parent
KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, GatewayError)}
# The sandbox speaks in Stripe's words, and settings are read before anything could answer.
ELSEWHERE = {"dev", "settings.py", "cli.py"}


def codes_raised() -> Iterator[tuple[str, str]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.relative_to(PACKAGE).parts[0] in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in KINDS:
                values = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                yield from (
                    (value.value, str(file.relative_to(PACKAGE)))
                    for value in values
                    if isinstance(value, ast.Constant) and isinstance(value.value, str)
                )


def test_every_code_that_is_raised_is_documented() -> None:
    unlisted = {(code, file) for code, file in codes_raised() if code not in PROBLEMS}
    assert unlisted == set()


def test_every_kind_of_error_has_its_own_code_documented() -> None:
    own = {kind.code for name, kind in vars(errors).items() if name in KINDS}
    assert own - set(PROBLEMS) == set()


def test_a_problem_has_the_members_of_rfc_9457_and_ours() -> None:
    error = InvalidRequest(
        "At most 1500.", code="rate_out_of_range", param="rate.unit_amount", minimum=100, maximum=1500
    )
    problem = describe(error, instance="/v1/sessions", request_id="req_1", docs_url="https://g.example/v1/docs")
    assert problem == {
        "type": "https://g.example/v1/docs#rate_out_of_range",
        "title": PROBLEMS["rate_out_of_range"].title,
        "status": 400,
        "detail": "At most 1500.",
        "instance": "/v1/sessions",
        "code": "rate_out_of_range",
        "param": "rate.unit_amount",
        "request_id": "req_1",
        "minimum": 100,
        "maximum": 1500,
    }


def test_an_error_of_ours_tells_the_caller_nothing_but_the_request() -> None:
    problem = describe(Bug("ses_1 has two bills", ledger="x"), instance="/p", request_id="req_1", docs_url="/d")
    assert "two bills" not in str(problem)
    assert "ledger" not in problem
    assert problem["status"] == 500


def test_extras_cannot_pretend_to_be_the_problem() -> None:
    problem = describe(InvalidRequest("x", status=200, type="t"), instance="/p", request_id="r", docs_url="/d")
    assert problem["status"] == 400


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequest("x"), 400),
        (Unauthorized("x", code="link_expired"), 410),
        (NotFound("x", code="not_listed_anywhere"), 404),
        (GatewayError("x"), 500),
    ],
)
def test_the_status_belongs_to_the_code(error: GatewayError, status: int) -> None:
    assert status_of(error) == status
