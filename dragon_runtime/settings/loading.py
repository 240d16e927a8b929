"""Where settings come from: flags, then the environment, then one YAML file, then defaults. Closed on every side.

An unknown key in the file, an unknown DRAGON_* variable or a bad value stops the start, with the full path of the key.
"""

import difflib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from dragon_core.errors import SettingsError
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import ProtocolSettings, SettingsGroup
from dragon_runtime.settings.reference import ENVIRONMENT_PREFIX, leaves

CONFIG_VARIABLE = "DRAGON_CONFIG"
"""Names the settings file when no flag does."""
NO_SETTINGS = frozenset({CONFIG_VARIABLE, "DRAGON_CACHE", "DRAGON_E2E_KUBECONFIG"})
"""Variables that are no settings: the last two are for the scripts that set up and test, and may be exported."""

Tree = dict[str, Any]


class PeerSettings(ProtocolSettings):
    """Root of the settings of an end. Made in code it takes arguments and defaults; `load_settings` reads the rest."""


Loaded = TypeVar("Loaded", bound=SettingsGroup)


def load_settings(
    cls: type[Loaded], config_path: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> Loaded:
    """Read settings of class `cls`: `overrides` (flags; `{"api.port": 1}` or nested, None: not given) win over the
    environment, which wins over the file at `config_path` (or named by DRAGON_CONFIG), which wins over defaults.

    Raises:
        SettingsError: a file that cannot be read, an unknown key or variable, or a bad value; names key and source.
    """
    if config_path is None and os.environ.get(CONFIG_VARIABLE):
        config_path = Path(os.environ[CONFIG_VARIABLE])
    layers = {
        "flags": _nested(overrides or {}),
        "environment": _from_environment(cls),
        str(config_path): {} if config_path is None else _from_file(config_path),
    }
    merged: Tree = {}
    for layer in reversed(layers.values()):
        _merge(merged, layer)
    try:
        return cls.model_validate(merged)
    except ValidationError as error:
        raise SettingsError(_explain(cls, error, layers)) from None  # the cause repeats values, secrets among them


def _nested(overrides: Mapping[str, Any]) -> Tree:
    tree: Tree = {}
    for key, value in overrides.items():
        if value is None:
            continue
        *groups, name = key.split(".")
        target = tree
        for group in groups:
            target = target.setdefault(group, {})
        if isinstance(value, Mapping):
            _merge(target.setdefault(name, {}), _nested(value))
        else:
            target[name] = value
    return tree


def _from_environment(cls: type[SettingsGroup]) -> Tree:
    paths = {leaf.environment: leaf.path for leaf in leaves(cls)}
    given: dict[str, str] = {}
    for variable, value in sorted(os.environ.items()):
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in NO_SETTINGS:
            continue
        if variable not in paths:
            raise SettingsError(f"environment variable {variable}: there is no such setting{_like(variable, paths)}")
        given[paths[variable]] = value
    return _nested(given)


class _UniqueKeyLoader(yaml.SafeLoader):
    """A key given twice is a mistake, not a choice of the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise SettingsError(f"{self.name}, line {line}: the key {key!r} stands twice")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _from_file(path: Path) -> Tree:
    try:
        with path.open(encoding="utf-8") as stream:
            content = yaml.load(stream, Loader=_UniqueKeyLoader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.YAMLError as error:  # without the lines that it repeats: there may be a secret in them
        raise SettingsError(f"the settings file {path} cannot be read: {_where(error)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise SettingsError(f"the settings file {path} must hold keys with values, not {type(content).__name__}")
    return content


def _where(error: yaml.YAMLError) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return "it is not YAML"
    mark = error.problem_mark
    return f"it is not YAML at line {mark.line + 1}, column {mark.column + 1}"


def _merge(target: Tree, layer: Tree) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        elif isinstance(value, dict):
            target[key] = {}
            _merge(target[key], value)
        else:
            target[key] = value


def _explain(cls: type[SettingsGroup], error: ValidationError, layers: dict[str, Tree]) -> str:
    secrets = {leaf.path for leaf in leaves(cls) if leaf.is_secret}
    known = {leaf.path for leaf in leaves(cls)}
    lines = []
    for found in error.errors(include_url=False, include_context=False):
        path = ".".join(str(part) for part in found["loc"])
        source = next((name for name, tree in layers.items() if _holds(tree, found["loc"])), "")
        where = f" (from {source})" if source else ""
        if found["type"] == "extra_forbidden":
            lines.append(f"{path}: there is no such setting{_like(path, known)}{where}")
            continue
        value = found.get("input")
        is_shown = not isinstance(value, dict) and not any(f"{secret}.".startswith(f"{path}.") for secret in secrets)
        got = f", not {value!r}" if is_shown and found["type"] != "missing" else ""
        lines.append(f"{path or 'settings'}: {found['msg'].removeprefix('Value error, ')}{got}{where}")
    return redacted("; ".join(lines))


def _holds(tree: Tree, path: tuple[int | str, ...]) -> bool:
    value: Any = tree
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return not isinstance(value, dict)
        value = value[part]
    return True


def _like(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""
