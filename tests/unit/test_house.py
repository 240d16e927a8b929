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
CONTAINERS = {"dragon_operator": Path("operator") / "dragon_operator"}


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


def test_every_package_is_in_the_contracts() -> None:
    """import-linter refuses a module in no layer, but only of packages that it is told of."""
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    assert set(contracts["root_packages"]) == packages | {"dragon_operator"}
    exhaustive = {
        container
        for contract in contracts["contracts"]
        if contract.get("exhaustive")
        for container in contract["containers"]
    }
    # Who has no other package above or below inside it has no layers.
    assert packages - exhaustive == {"link_emulator"}


def test_every_folder_with_modules_is_a_package() -> None:
    """A module outside of a package is in no layer, and no contract sees it."""
    named = {
        ROOT / name
        for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
    }
    named.add(ROOT / CONTAINERS["dragon_operator"])
    outside = [
        str(path.relative_to(ROOT))
        for path in files(".py")
        if any(parent in named for parent in path.parents) and not (path.parent / "__init__.py").exists()
    ]
    assert outside == []
