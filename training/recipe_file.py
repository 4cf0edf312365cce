"""Recipes: TOML files that state only what differs from the documented defaults of a frozen dataclass.

`read(Recipe, path, {"optimizer.lr": "3e-4"})` checks every key and value; an unknown key is refused with the
nearest valid name. A recipe may begin with `base = "other.toml"`, whose values it then changes.
"""

from __future__ import annotations

import difflib
import inspect
import re
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from magpie.errors import InvalidArgument

R = TypeVar("R")


def read(kind: type[R], path: Path | None, changes: Mapping[str, str] | None = None) -> R:
    """The recipe of `path` (None: the defaults) with `changes`, dotted key -> TOML value or bare word.

    Raises InvalidArgument naming the file or key, what is wrong, and the nearest valid name.
    """
    values = {} if path is None else table(path)
    for key, text in (changes or {}).items():
        put(values, key, value_of(text))
    return build(kind, values, str(path or "recipe"))


def table(path: Path) -> dict[str, Any]:
    """A TOML file with that of its `base` under it."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidArgument("recipe", f"{path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument("recipe", f"{path} is no TOML: {error}") from error
    base = values.pop("base", None)
    return values if base is None else merged(table(path.parent / base), values)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` on top of `under`, table by table; lists are replaced whole."""
    result = dict(under)
    for key, value in over.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def build(kind: type[R], values: Mapping[str, Any], where: str, prefix: str = "") -> R:
    """An instance of the dataclass `kind`. Raises InvalidArgument."""
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass, by contract
    arguments = {}
    for key, value in values.items():
        if key not in known:
            raise InvalidArgument(where, f"`{prefix}{key}` is unknown{nearest(key, known)}")
        arguments[key] = _checked(hints[key], _over_default(known[key], value), where, f"{prefix}{key}")
    missing = [name for name, field in known.items() if _needed(field) and name not in arguments]
    if missing:
        raise InvalidArgument(where, f"`{prefix}{missing[0]}` is missing")
    try:
        return kind(**arguments)
    except ValueError as error:  # a dataclass's own check of its values
        raise InvalidArgument(where, f"{prefix.rstrip('.') or 'recipe'}: {error}") from error


def nearest(word: str, known: Mapping[str, object] | Sequence[str]) -> str:
    """`: did you mean ...?`, or what there is."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f": did you mean `{close[0]}`?" if close else f"; there is {', '.join(sorted(known))}"


def differences(recipe: Any) -> dict[str, Any]:
    """Dotted key -> value, of all that differs from the defaults of a dataclass."""
    default = flat(asdict(type(recipe)()))
    return {key: value for key, value in flat(asdict(recipe)).items() if value != default.get(key)}


def documented(recipe: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """(dotted key, value, meaning) of every setting; the meaning is the comment beside it in the source."""
    source = inspect.getsource(type(recipe))
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if is_dataclass(value):
            yield from documented(value, f"{prefix}{field.name}.")
            continue
        comment = re.search(rf"^    {field.name}: [^#\n]*(?:  # (.*))?$", source, re.MULTILINE)
        yield f"{prefix}{field.name}", value, (comment and comment[1]) or ""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as dotted keys."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[f"{prefix}{key}"] = value
    return result


def _over_default(field: Field[Any], value: object) -> object:
    """A table states differences from the field's default, which need not be that of its type."""
    default = field.default if field.default_factory is MISSING else field.default_factory()
    if is_dataclass(default) and not isinstance(default, type) and isinstance(value, Mapping):
        return merged(asdict(default), value)
    return value


def _needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def put(values: dict[str, Any], key: str, value: object) -> None:
    """Set a dotted key in nested tables. Raises InvalidArgument if a part of it is no table."""
    *tables, last = key.split(".")
    for name in tables:
        values = values.setdefault(name, {})
        if not isinstance(values, dict):
            raise InvalidArgument(key, f"`{name}` is no table")
    values[last] = value


def value_of(text: str) -> object:
    """A TOML value as a person types it; what is none is a bare word."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(hint: Any, value: Any, where: str, key: str) -> Any:  # noqa: PLR0911, PLR0912 - a case a type
    def refuse(wanted: str) -> typing.NoReturn:
        raise InvalidArgument(where, f"`{key}` must be {wanted}, got {value!r}")

    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _checked(inner[0], value, where, key)
    if origin is Literal:
        if value not in inner:
            words = ", ".join(f"`{word}`" for word in inner)
            suffix = nearest(str(value), [str(word) for word in inner])
            refuse(f"one of {words}" + (suffix if suffix.startswith(":") else ""))
        return value
    if is_dataclass(hint):
        if not isinstance(value, Mapping):
            refuse("a table")
        return build(hint, value, where, f"{key}.")  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            refuse("a list")
        kinds = [inner[0]] * len(value) if len(inner) == 2 and inner[1] is ... else list(inner)
        if len(kinds) != len(value):
            refuse(f"a list of {len(kinds)} values")
        return tuple(
            _checked(k, v, where, f"{key}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            refuse("a table")
        return {name: _checked(inner[1], v, where, f"{key}.{name}") for name, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str, bool):
        if type(value) is not hint:
            names = {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}
            refuse(names[hint])
        return value
    return value
