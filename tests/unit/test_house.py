"""The house keeps its shape: no file and no folder grows without bound, and no package stands outside of the walls."""

import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
MAX_MODULES = 16
"""In one folder, beside its `__init__`."""
HIDDEN = ("tests", "build")
GENERATED = frozenset({"docs/api.md", "docs/settings.md"})
OPERATOR = ROOT / "operator" / "dragon_operator"


def files(*suffixes: str) -> list[Path]:
    """Files of the project outside of tests, and of what tools leave here."""
    return sorted(
        path
        for suffix in suffixes
        for path in ROOT.rglob(f"*{suffix}")
        if not any(
            part.startswith(".") or part in HIDDEN or part.endswith(".egg-info")
            for part in path.relative_to(ROOT).parts
        )
    )


def test_no_file_is_too_long_to_be_read() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in files(".py", ".md")
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES and name not in GENERATED} == {}


def test_no_folder_is_too_full_to_be_overlooked() -> None:
    modules = Counter(path.parent.relative_to(ROOT) for path in files(".py") if path.name != "__init__.py")
    assert {str(folder): number for folder, number in modules.items() if number > MAX_MODULES} == {}


def test_every_module_is_in_a_layer() -> None:
    """import-linter refuses a module in no layer, but only in packages whose contract is exhaustive: all of them."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    top = {path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in HIDDEN} | {OPERATOR}
    assert set(contracts["root_packages"]) == {path.name for path in top}
    packages = {
        ".".join((root.name, *init.parent.relative_to(root).parts))
        for root in top
        for init in root.rglob("__init__.py")
    }
    exhaustive = {
        container
        for contract in contracts["contracts"]
        if contract.get("exhaustive")
        for container in contract["containers"]
    }
    assert packages - exhaustive == set()
    outside = [
        str(path.relative_to(ROOT))
        for path in files(".py")
        if any(parent in top for parent in path.parents) and not (path.parent / "__init__.py").exists()
    ]
    assert outside == [], "a module outside of a package is in no layer"
