"""params.yaml, one section per stage, checked: unknown, missing, mistyped and out-of-range settings are refused.

Each section is a frozen dataclass in a module of its own; its `__post_init__` raises ValueError if settings do not fit
each other. Its fields are `bool`, `int`, `float`, `str`, `Literal`, `X | None`, `tuple[X, ...]`, other dataclasses, and
unions of dataclasses that carry their name as `name: Literal["..."]` (tagged unions, written `{name: relativistic}`).
Ranges are `Annotated[int, Range(ge=1)]`.
`Annotated[Any, FileOf("package")]` is a tagged union whose variants are the files of a package, so that a new variant
is a new file and changes no other.
"""

import dataclasses
import difflib
import importlib
import math
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from stages.common.yaml_files import read_yaml

T = TypeVar("T")
MACHINE = {"machine": True}  # metadata of a field that no byte of a result depends on; it is not recorded


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """Bounds of a number: at least `ge`, more than `gt`, at most `le`, less than `lt`."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.ge <= value <= self.le and self.gt < value < self.lt

    def __str__(self) -> str:
        signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
        return " and ".join(f"{signs[k]} {v:g}" for k, v in dataclasses.asdict(self).items() if math.isfinite(v))


def recorded(config: Any) -> dict[str, Any]:
    """The settings that determine a result: all except those that concern only the machine."""
    free = {field.name for field in dataclasses.fields(config) if field.metadata == MACHINE}
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in free}


@dataclasses.dataclass(frozen=True)
class FileOf:
    """The mapping's `name` is a file of `package`, and that file's dataclass `Config` says what else the mapping holds.

    Only the chosen file is imported, so that a stage depends on that one alone.
    """

    package: str


def load_section(config: type[T], params: Path, section: str) -> T:
    """Section `section` of the YAML file `params` as a `config`. Raises ValueError with setting, rule and value."""
    return build(config, read_section(params, section), section)


def read_section(params: Path, section: str) -> Any:
    """Section `section` of the YAML file `params`, unchecked. Raises ValueError if there is none."""
    content = read_yaml(params)
    if not isinstance(content, dict) or section not in content:
        near = _near(section, content) if isinstance(content, dict) else ""
        raise ValueError(f"{params} must hold a section `{section}`{near}")
    return content[section]


def build(kind: Any, value: Any, where: str) -> Any:
    """`value` checked against the type `kind`; `where` is the dotted name that an error gives."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _build_annotated(arguments, value, where)
    if origin is typing.Literal:
        if not any(value == allowed and type(value) is type(allowed) for allowed in arguments):  # True == 1.0 == 1
            raise _wrong(where, f"one of {', '.join(map(str, arguments))}", value, _near(value, arguments))
        return value
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        return tuple(build(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(typing.cast(type, kind), value, where)
    return _build_scalar(kind, value, where)


def _build_annotated(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    bounds = arguments[1]
    if isinstance(bounds, FileOf):
        return _build_chosen(bounds.package, value, where)
    result = build(arguments[0], value, where)
    if result not in bounds:
        raise _wrong(where, f"a number {bounds}", value)
    return result


def _build_chosen(package: str, value: Any, where: str) -> Any:
    folder = Path(str(importlib.import_module(package).__file__)).parent
    names = sorted(path.stem for path in folder.glob("[!_]*.py"))
    found = value.get("name") if isinstance(value, dict) else value
    if not isinstance(value, dict) or found not in names:
        raise _wrong(f"{where}.name", f"one of {', '.join(names)}", found, _near(found, names))
    return build(importlib.import_module(f"{package}.{found}").Config, value, where)


def _build_union(arguments: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in arguments:
        return None
    variants = [argument for argument in arguments if argument is not type(None)]
    if len(variants) == 1:
        return build(variants[0], value, where)
    names = {typing.get_args(typing.get_type_hints(variant)["name"])[0]: variant for variant in variants}
    found = value.get("name") if isinstance(value, dict) else value
    if not isinstance(value, dict) or not isinstance(found, str) or found not in names:
        raise _wrong(f"{where}.name", f"one of {', '.join(names)}", found, _near(found, names))
    return build(names[found], value, where)


def _build_dataclass(kind: type[T], value: Any, where: str) -> T:
    if not isinstance(value, dict):
        raise _wrong(where, "a mapping", value)
    found = typing.get_type_hints(kind, include_extras=True)
    hints = {field.name: found[field.name] for field in dataclasses.fields(typing.cast(Any, kind))}
    for key in value:
        if key not in hints:
            raise ValueError(f"{where}.{key} is not a setting{_near(key, hints)}; the settings are {', '.join(hints)}")
    for name in hints:
        if name not in value:
            raise ValueError(f"{where}.{name} is missing; params.yaml must state every setting")
    settings = {name: build(hint, value[name], f"{where}.{name}") for name, hint in hints.items()}
    try:
        return kind(**settings)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _build_scalar(kind: type, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind or (isinstance(value, float) and not math.isfinite(value)):
        hint = "; YAML reads 1e-3 as text, write 1.0e-3 or 0.001" if kind is float and isinstance(value, str) else ""
        names = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
        raise _wrong(where, names.get(kind, kind.__name__), value, hint)
    return value


def _wrong(where: str, rule: str, value: Any, hint: str = "") -> ValueError:
    return ValueError(f"{where} must be {rule}; received {value!r}{hint}")


def _near(word: Any, known: Any) -> str:
    close = difflib.get_close_matches(str(word), [str(name) for name in known], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""
