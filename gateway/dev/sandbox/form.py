"""Stripe's request encoding: form fields with brackets, to nested dictionaries."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl

from gateway.dev.sandbox.refusals import Refusal

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)\Z")
_PART = re.compile(r"\[([^\[\]]*)\]")


def decode(text: str) -> dict[str, Any]:
    """`a[b][0]=x` becomes {"a": {"b": {"0": "x"}}}; `a[]=x` counts its own places. Values stay strings."""
    root: dict[str, Any] = {}
    for key, value in parse_qsl(text, keep_blank_values=True):
        _put(root, _path(key), value)
    return root


def _path(key: str) -> list[str]:
    match = _KEY.match(key)
    if match is None:
        raise Refusal(f"Received unknown parameter: {key}", code="parameter_unknown", param=key, saved=False)
    return [match[1], *_PART.findall(match[2])]


def _put(root: dict[str, Any], path: list[str], value: str) -> None:
    node = root
    for part in path[:-1]:
        child = node.setdefault(part or str(len(node)), {})
        if not isinstance(child, dict):
            raise Refusal("Invalid object", param=path[0], saved=False)
        node = child
    node[path[-1] or str(len(node))] = value
