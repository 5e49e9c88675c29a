"""Checks a request against the installed SDK's own typed parameters for that call, before the endpoint begins.

The SDK's TypedDicts are generated from Stripe's OpenAPI description: nested keys, enumerations, types, required keys.
Each is compiled once into plain closures; nested ones when first met.
"""

from __future__ import annotations

import importlib
import re
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

import typing_extensions
from stripe import RequestOptions

from gateway.dev.sandbox.refusals import Refusal

# A check takes the parameter's name as Stripe writes it ("card[token]") and the form value, and gives the typed value.
Check = Callable[[str, Any], Any]

_INTEGER = re.compile(r"-?\d{1,19}\Z")
_OPTIONS = frozenset(RequestOptions.__annotations__)
_MAX_KEYS, _MAX_KEY, _MAX_VALUE = 50, 40, 500  # docs.stripe.com/api/metadata


@cache
def parameters(call: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The checker of one call, named as the SDK's module: `payment_intent_create`. It raises Refusal."""
    module = importlib.import_module(f"stripe.params._{call}_params")
    record = _Record(getattr(module, "".join(part.title() for part in call.split("_")) + "Params"))
    return lambda form: record.check("", form)


class _Record:
    """One TypedDict; its fields are compiled when a request first uses it."""

    def __init__(self, shape: Any) -> None:
        self.shape = shape
        self.fields: dict[str, Check] | None = None
        self.required: frozenset[str] = frozenset()

    def check(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise _wrong("Invalid object", name)
        fields = self.fields if self.fields is not None else self._compile()
        self._refuse_unknown(name, value, fields)
        for key in self.required:
            if key not in value:
                full = _inside(name, key)
                raise _wrong(f"Missing required param: {full}.", full, "parameter_missing")
        return {key: fields[key](_inside(name, key), each) for key, each in value.items()}

    def _refuse_unknown(self, name: str, value: dict[str, Any], fields: dict[str, Check]) -> None:
        unknown = [_inside(name, key) for key in value if key not in fields]
        for each in unknown:
            if each in _RETIRED:
                raise _wrong(
                    f"`{each}` is no longer supported. Use dynamic payment methods instead.", each, _RETIRED[each]
                )
        if unknown:
            word = "parameter" if len(unknown) == 1 else "parameters"
            raise _wrong(f"Received unknown {word}: {', '.join(unknown)}", unknown[0], "parameter_unknown")

    def _compile(self) -> dict[str, Check]:
        declared: dict[str, Any] = self.shape.__annotations__
        # The outermost TypedDicts inherit the client's own options (api_key, headers, ...), which never
        # travel as parameters.
        inherited = _OPTIONS if declared.keys() >= _OPTIONS else frozenset()
        own = {key: hint for key, hint in declared.items() if key not in inherited}
        holder = type("Own", (), {"__annotations__": own, "__module__": self.shape.__module__})
        hints = typing.get_type_hints(holder, include_extras=True)
        self.required = frozenset(self.shape.__required_keys__) & own.keys()
        self.fields = {key: compiled(hint) for key, hint in hints.items()}
        return self.fields


@cache
def _record(shape: Any) -> _Record:
    return _Record(shape)


def compiled(hint: Any) -> Check:
    """The check for one annotation."""
    origin = typing.get_origin(hint)
    if origin in (typing_extensions.NotRequired, typing_extensions.Required, typing.NotRequired, typing.Required):
        return compiled(typing.get_args(hint)[0])
    if origin in (typing.Union, types.UnionType):
        return _union(_flat(hint))
    return _union([hint])


def _flat(hint: Any) -> list[Any]:
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return [hint]
    return [leaf for member in typing.get_args(hint) for leaf in _flat(member)]


def _union(members: list[Any]) -> Check:
    literals = [word for m in members if typing.get_origin(m) in _LITERALS for word in typing.get_args(m)]
    shapes = [m for m in members if typing_extensions.is_typeddict(m)]
    maps = [typing.get_args(m)[1] for m in members if typing.get_origin(m) is dict]
    lists = [typing.get_args(m)[0] for m in members if typing.get_origin(m) is list]
    unset = "" in literals
    words = [word for word in literals if word != ""]
    # The SDK writes open enumerations as `Literal[...] | str`, to outlive its own version; the API is closed.
    plain = [m for m in members if m in _SCALARS and not (m is str and words)]
    nested = _nested(shapes, maps, lists)
    scalar = _scalar(plain, words, required_kind="object" if shapes or maps else "array")

    def check(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            if nested is None:
                raise _wrong(f"Invalid string: {_shown(value)}", name)
            return nested(name, value)
        if value == "":
            if unset:
                return ""
            raise _emptied(name)
        return scalar(name, value)

    return check


def _nested(shapes: list[Any], maps: list[Any], lists: list[Any]) -> Check | None:
    if shapes:
        record = _record(shapes[0])
        return record.check
    if maps:
        return _mapping(compiled(maps[0]))
    if lists:
        return _array(compiled(lists[0]))
    return None


def _mapping(each: Check) -> Check:
    def check(name: str, value: dict[str, Any]) -> dict[str, Any]:
        if len(value) > _MAX_KEYS:
            raise _wrong(f"You can only specify {_MAX_KEYS} {name} keys.", name)
        return {key: _entry(name, key, item) for key, item in value.items()}

    def _entry(name: str, key: str, item: Any) -> Any:
        if len(key) > _MAX_KEY:
            raise _wrong(f"Metadata keys can be up to {_MAX_KEY} characters long.", _inside(name, key))
        if item == "":
            return ""
        if isinstance(item, str) and len(item) > _MAX_VALUE:
            raise _wrong(
                f"Metadata values can have up to {_MAX_VALUE} characters, but you passed in a value that is "
                f"{len(item)} characters. Invalid value: {item[:20]}...",
                _inside(name, key),
            )
        return each(_inside(name, key), item)

    return check


def _array(each: Check) -> Check:
    def check(name: str, value: dict[str, Any]) -> list[Any]:
        if not all(key.isdigit() for key in value):
            raise _wrong("Invalid array", name)
        ordered = sorted(value.items(), key=lambda item: int(item[0]))
        return [each(f"{name}[{key}]", item) for key, item in ordered]

    return check


def _scalar(plain: list[Any], words: list[str], required_kind: str) -> Check:
    def check(name: str, value: str) -> Any:
        if value in words:
            return value
        if bool in plain and value in ("true", "false"):
            return value == "true"
        if int in plain and _INTEGER.match(value):
            return int(value)
        if float in plain and _is_decimal(value):
            return float(value)
        if str in plain:
            return value
        raise _scalar_refusal(name, value, plain, words, required_kind)

    return check


# 2026-09-30.endive removed it from payment intents, with a code of its own (Stripe's changelog).
_RETIRED = {"payment_method_types": "payment_method_types_no_longer_supported"}


def _scalar_refusal(name: str, value: str, plain: list[Any], words: list[str], required_kind: str) -> Refusal:
    if words:
        last = _leaf(name)
        return _wrong(
            f"Invalid {last}: must be one of {_listed([*words, *(['true', 'false'] if bool in plain else [])])}", name
        )
    if int in plain:
        return _wrong(f"Invalid integer: {value}", name, "parameter_invalid_integer")
    if bool in plain:
        return _wrong(f"Invalid boolean: {value}", name)
    if float in plain:
        return _wrong(f"Invalid decimal: {value}", name)
    return _wrong(f"Invalid {required_kind}", name)


def _emptied(name: str) -> Refusal:
    return _wrong(
        f"You passed an empty string for '{name}'. We assume empty values are an attempt to unset a field; however "
        f"'{name}' cannot be unset. You should remove '{name}' from your request or supply a non-empty value.",
        name,
        "parameter_invalid_empty",
    )


def _wrong(message: str, param: str, code: str | None = None) -> Refusal:
    return Refusal(message, param=param or None, code=code, saved=False)


def _inside(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key


def _leaf(name: str) -> str:
    return name.rstrip("]").rsplit("[", 1)[-1]


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + f", or {words[-1]}"


def _shown(value: dict[str, Any]) -> str:
    return "{" + ", ".join(f'"{key}"=>...' for key in value) + "}"


def _is_decimal(value: str) -> bool:
    return re.match(r"-?\d+(\.\d+)?\Z", value) is not None


_SCALARS = (str, int, bool, float)
_LITERALS = (typing.Literal, typing_extensions.Literal)
