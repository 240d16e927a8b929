"""What settings there are: every leaf with its path, variable, default and meaning. For pages and checks."""

import enum
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

ENVIRONMENT_PREFIX = "DRAGON_"
NESTING = "__"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One setting. `path` is its key in the file, dots between groups; `kind` is words for its type and limits."""

    path: str
    kind: str
    default: str
    description: str
    is_secret: bool

    @property
    def environment(self) -> str:
        return environment_name(self.path)


def environment_name(path: str) -> str:
    """The environment variable of a key path: `broker.ca_file` is DRAGON_BROKER__CA_FILE."""
    return ENVIRONMENT_PREFIX + path.replace(".", NESTING).upper()


def leaves(cls: type[BaseModel], *, prefix: str = "", defaults: BaseModel | None = None) -> Iterator[Leaf]:
    """Every setting below `cls`, in the order of its fields; `defaults` replaces the group's own."""
    for name, field in cls.model_fields.items():
        path = prefix + name
        group = group_of(field)
        if group is not None:
            given = field.default if isinstance(field.default, BaseModel) else None
            yield from leaves(group, prefix=f"{path}.", defaults=given)
            continue
        yield Leaf(
            path=path,
            kind=_kind(field),
            default=_default(field) if defaults is None else _shown(getattr(defaults, name)),
            description=field.description or "",
            is_secret=SecretStr in _members(field.annotation),
        )


def group_of(field: FieldInfo) -> type[BaseModel] | None:
    """The group a field holds, or None for a plain value."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def describe(cls: type[BaseModel]) -> str:
    """A Markdown table of every setting of `cls`."""
    lines = ["| key | environment | value | default | meaning |", "|---|---|---|---|---|"]
    lines += [
        f"| `{leaf.path}` | `{leaf.environment}` | {leaf.kind} | {leaf.default} | {leaf.description} |"
        for leaf in leaves(cls)
    ]
    return "\n".join(lines) + "\n"


def _members(annotation: object) -> tuple[object, ...]:
    """The alternatives of a type, without None and without what only annotates."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(m for part in typing.get_args(annotation) if part is not types.NoneType for m in _members(part))
    return (annotation,)


def _limits(field: FieldInfo) -> str:
    words = []
    for constraint in [*field.metadata, *_annotations(field.annotation)]:
        for sign, name in (("≥", "ge"), (">", "gt"), ("≤", "le"), ("<", "lt")):
            bound = getattr(constraint, name, None)
            if bound is not None and isinstance(constraint, annotated_types.BaseMetadata):
                words.append(f"{sign} {bound}")
    return ", ".join(words)


def _annotations(annotation: object) -> list[object]:
    """What `Annotated` says inside an optional type."""
    found: list[object] = []
    for part in typing.get_args(annotation):
        if typing.get_origin(part) is typing.Annotated:
            for item in typing.get_args(part)[1:]:
                found += item.metadata if isinstance(item, FieldInfo) else [item]
    return found


def _kind(field: FieldInfo) -> str:
    names = {str: "text", bool: "true, false", int: "whole number", float: "number", Path: "path", SecretStr: "secret"}
    words = []
    for member in _members(field.annotation):
        if isinstance(member, type) and issubclass(member, enum.Enum):
            words.append(", ".join(f"`{choice.value}`" for choice in member))
        elif typing.get_origin(member) is tuple:
            words.append("list of texts")
        else:
            words.append(names[typing.cast("type", member)])
    limits = _limits(field)
    return " or ".join(words) + (f", {limits}" if limits else "")


def _default(field: FieldInfo) -> str:
    """A default that depends on the machine is not spelled out: its page must be the same everywhere."""
    if field.is_required():
        return "required"
    return "of the machine" if field.default_factory is not None else _shown(field.default)


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, enum.Enum):
        return f"`{value.value}`"
    if value in ((), ""):
        return "empty"
    return f"`{value}`"
