"""The files: which there are, how one looks, and whether one on the disk is what the code computes."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vectors import coupling, distributions, ending, messages, noise, placement, weighting
from vectors.cases import Case

TOLERANCE = 1e-12
FILES: Mapping[str, Callable[[], Case]] = {
    "noise.json": noise.build,
    "distributions.json": distributions.build,
    "weighting.json": weighting.build,
    "coupling.json": coupling.build,
    "messages.json": messages.build,
    "placement.json": placement.build,
    "ending.json": ending.build,
}


def render(content: Case) -> str:
    """JSON with one case a line."""
    parts = []
    for key, value in content.items():
        is_cases = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
        lines = [json.dumps(item, allow_nan=False) for item in (value if is_cases else [value])]
        parts.append(f" {json.dumps(key)}: " + ("[\n  " + ",\n  ".join(lines) + "\n ]" if is_cases else lines[0]))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def is_same(found: Any, expected: Any) -> bool:
    """Equal, but for what floats may differ by."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return list(found) == list(expected) and all(is_same(found[key], expected[key]) for key in expected)
    if isinstance(expected, list) and isinstance(found, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    return type(found) is type(expected) and bool(found == expected)


def is_current(path: Path, text: str) -> bool:
    """Whether the file says what the code computes, in the form it is written in."""
    if not path.exists():
        return False
    found = path.read_text(encoding="utf-8")
    try:
        content = json.loads(found)
    except ValueError:
        return False
    return is_same(content, json.loads(text)) and found == render(content)


def write_all(folder: Path, *, is_check: bool) -> int:
    """Write the files, or only say which are not right; returns the exit code."""
    texts = {folder / name: render(build()) for name, build in FILES.items()}
    stale = [path for path, text in texts.items() if not is_current(path, text)]
    unknown = sorted(set(folder.glob("*")) - set(texts))
    for path in unknown:
        print(f"{path} is not written by scripts/write_vectors.py: delete it", file=sys.stderr)
    for path in stale:
        if is_check:
            print(f"{path} is not what the code computes: run scripts/write_vectors.py", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(texts[path], encoding="utf-8")
    return 1 if unknown or (is_check and stale) else 0
