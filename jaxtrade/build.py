"""Plain mappings to frozen dataclasses and back, by type hints, with errors of one line.

Nothing is guessed: a whole number is not 1.5 nor true, text is not a number, a key that no field
has is an error. A whole number is a good float, a list a good tuple.
"""

import dataclasses
import difflib
import math
import re
import types
import typing
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from jaxtrade.specs import JaxtradeError

T = TypeVar("T")

REST = {"rest": True}
"""Metadata of the one dict field that takes every key of the mapping that no other field has."""

CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that no setting holds: a text is one line, in YAML and in messages."""


def build(cls: type[T], mapping: object, where: str = "") -> T:
    """The dataclass `cls` from a plain mapping, nested as its type hints say.

    Args:
        cls: a dataclass.
        mapping: keys are field names; fields with a default may be left out.
        where: dotted key of the mapping, for messages.

    Raises:
        JaxtradeError: with the dotted key: one unknown, missing, of the wrong type, or refused by
            a dataclass's own checks.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(typing.cast(Any, cls))}
    rest = _rest_field(cls)
    own = [name for name in fields if name != rest]
    if not isinstance(mapping, Mapping):
        raise wrong(where or "the configuration", mapping, f"its settings: {', '.join(own)}")
    others = {key: value for key, value in mapping.items() if key not in own}
    if others and rest is None:
        raise unknown_key(next(iter(others)), own, where)
    values: dict[str, Any] = {}
    for name in own:
        if name in mapping:
            values[name] = _convert(hints[name], mapping[name], join(where, name))
        elif _is_required(fields[name]):
            key = join(where, name)
            raise JaxtradeError(f"{key} is missing: give {key}=VALUE")
    if rest is not None:
        values[rest] = _convert(hints[rest], others, where)
    try:
        return cls(**values)
    except JaxtradeError as error:
        text = str(error)
        raise JaxtradeError(text if text.startswith(where) else f"{where}: {text}") from error


def plain(value: Any) -> Any:
    """What `build` takes to make `value` again: mappings, lists, numbers, text, None."""
    if dataclasses.is_dataclass(value):
        tree: dict[str, Any] = {}
        for field in dataclasses.fields(value):
            item = plain(getattr(value, field.name))
            tree.update(item if field.metadata.get("rest") else {field.name: item})
        return tree
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def unknown_key(key: object, known: Iterable[str], where: str) -> JaxtradeError:
    """The error for a key that is not among `known` below `where`, with the nearest if one is.

    `raise unknown_key("learning_rat", names, "agent")` says: unknown setting
    'agent.learning_rat': did you mean 'agent.learning_rate'?
    """
    names = list(known)
    text = f"unknown setting {join(where, key)!r}"
    match = nearest(str(key), names)
    if match is not None:
        return JaxtradeError(f"{text}: did you mean {join(where, match)!r}?")
    return JaxtradeError(f"{text}: {where or 'the top level'} has {', '.join(names) or 'none'}")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The word of `known` that `word` is likely to be a slip for, or None."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1)), None)


def join(where: str, key: object) -> str:
    """The dotted key of `key` below `where`."""
    return f"{where}.{key}" if where else str(key)


def wrong(where: str, value: object, right: str) -> JaxtradeError:
    """The error for a value that is not what it should be; `right` goes on after give."""
    text = repr(value)
    text = text if len(text) <= 80 else text[:77] + "..."
    return JaxtradeError(f"{where} is {text}: give {right}")


def require(good: bool, where: str, value: object, right: str) -> None:
    """Raise `wrong` unless `good`."""
    if not good:
        raise wrong(where, value, right)


def _rest_field(cls: Any) -> str | None:
    """The name of the field that takes all other keys, if `cls` has one."""
    return next((f.name for f in dataclasses.fields(cls) if f.metadata.get("rest")), None)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is missing and field.default_factory is missing


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` says, or the error that names `where` and what would be right."""
    if isinstance(value, str) and "${" in value:
        raise wrong(where, value, "a value without ${, which refers to another setting")
    if isinstance(value, str) and any(unicodedata.category(c) in CONTROL for c in value):
        raise wrong(where, value, "text on one line, without control characters")
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(hint, value, where)
    if origin is dict and isinstance(value, Mapping):
        return {
            _name(key, where): _convert(args[1], item, join(where, key))
            for key, item in value.items()
        }
    if origin is tuple and isinstance(value, list | tuple):
        hints = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(hints) == len(value):
            pairs = enumerate(zip(hints, value, strict=True))
            return tuple(_convert(hint, item, f"{where}[{i}]") for i, (hint, item) in pairs)
    if hint is float and type(value) in (int, float) and _is_number(value):
        return float(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    raise wrong(where, value, _wanted(hint) + _hint(hint, value))


def _convert_union(hint: Any, value: Any, where: str) -> Any:
    """The first member of the union that takes the value."""
    members = [member for member in typing.get_args(hint) if member is not types.NoneType]
    if value is None and len(members) < len(typing.get_args(hint)):
        return None
    if len(members) == 1:
        return _convert(members[0], value, where)
    for member in members:
        try:
            return _convert(member, value, where)
        except JaxtradeError:
            continue
    raise wrong(where, value, _wanted(hint))


def _is_number(value: float) -> bool:
    """Whether a float can hold it; infinity may stand for no limit, not-a-number for nothing."""
    try:
        return not math.isnan(float(value))
    except OverflowError:
        return False


def _name(key: object, where: str) -> str:
    """A key that a dotted override can reach."""
    if not isinstance(key, str) or not re.fullmatch(r"\w+(@\w+)?", key):
        raise wrong(f"a name in {where}", key, "letters, digits and _")
    return key


def _wanted(hint: Any) -> str:
    """A type in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is dict:
        return f"names, each with {_wanted(args[1])}"
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return "a list"
    if origin is tuple:
        return f"a list of {len(args)}, each {_wanted(args[0])}"
    if origin in (typing.Union, types.UnionType):
        return ", ".join(_wanted(arg) for arg in args[:-1]) + f" or {_wanted(args[-1])}"
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return words.get(hint, "null")


def _hint(hint: Any, value: object) -> str:
    """How to write a value that looks right and is not."""
    if hint is int and isinstance(value, float) and value.is_integer():
        return f", as in {int(value)}"
    if hint is str and type(value) in (bool, int, float):
        return f""", in quotes on the command line, as in '"{value}"'"""
    return ""
