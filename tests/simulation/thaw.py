"""Frozen records, thawed while the simulator runs: nobody writes to them (mypy sees to that), so the check at each
attribute of each record, a fifth of the simulator's time, may rest meanwhile.

`thawed` replaces, for every frozen dataclass of the gateway, the generated `__init__` by one with plain stores, and
`dataclasses.replace` by one that copies slots. Values, defaults, `__post_init__` and equality stay what they were.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

_MISSING = dataclasses.MISSING
Copies = dict[type, Callable[[Any], Any]]


@contextmanager
def thawed() -> Iterator[None]:
    """While it lasts, the gateway's records are built and copied without the freezing."""
    copies: Copies = {}
    replace = _replace_with(copies)
    with ExitStack() as stack:
        for module in [m for name, m in sys.modules.items() if name.startswith("gateway.")]:
            if vars(module).get("replace") is dataclasses.replace:
                stack.enter_context(mock.patch.object(module, "replace", replace))
            for cls in _records(module):
                copies[cls] = _compiled(cls, _copy_source(cls), {"new": object.__new__, "cls": cls})
                stack.enter_context(_thaw(cls))
        yield


def _records(module: ModuleType) -> list[type]:
    return [
        thing for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and "__slots__" in vars(thing)
        and "__setattr__" in vars(thing) and dataclasses.is_dataclass(thing)
    ]  # fmt: skip


@contextmanager
def _thaw(cls: type) -> Iterator[None]:
    kept = {name: vars(cls)[name] for name in ("__init__", "__setattr__", "__delattr__")}
    cls.__init__ = _compiled(cls, *_init_source(cls))  # type: ignore[misc]
    del cls.__setattr__, cls.__delattr__
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(cls, name, method)


def _init_source(cls: type) -> tuple[str, dict[str, Any]]:
    names: dict[str, Any] = {"missing": _MISSING}
    given, stores = [], []
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        name, value = field.name, field.name
        if field.default_factory is not _MISSING:
            names["make_" + name] = field.default_factory
            value = f"make_{name}() if {name} is missing else {name}"
            given.append(f"{name}=missing")
        elif field.default is not _MISSING:
            names["default_" + name] = field.default
            given.append(f"{name}=default_{name}")
        else:
            given.append(name)
        stores.append(f" self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        stores.append(" self.__post_init__()")
    return "\n".join([f"def made(self, {', '.join(given)}):", *(stores or [" pass"])]), names


def _copy_source(cls: type) -> str:
    stores = [f" copy.{field.name} = old.{field.name}" for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    return "\n".join(["def made(old):", " copy = new(cls)", *stores, " return copy"])


def _compiled(cls: type, source: str, names: dict[str, Any]) -> Any:
    exec(compile(source, f"<thawed {cls.__name__}>", "exec"), names)
    return names["made"]


def _replace_with(copies: Copies) -> Callable[..., Any]:
    def replace(record: Any, /, **changes: Any) -> Any:
        copied = copies.get(type(record))
        if copied is None:
            return dataclasses.replace(record, **changes)
        copy = copied(record)
        for name, value in changes.items():
            setattr(copy, name, value)
        check = getattr(copy, "__post_init__", None)
        if check is not None:
            check()
        return copy

    return replace
