"""What is wanted of a device: what is taken, what is kept, and which model it starts with."""

import re
from pathlib import Path
from typing import Any

import pytest

from dragon_core.fleet.messages import (
    Aggregation,
    Configuration,
    Desired,
    DeviceModel,
    SamplingDefaults,
)
from dragon_core.types import CouplingKind, Weighting, WeightingRule
from dragon_runtime.settings import LogLevel, PlacementChoice
from edge_daemon.fleet.twin import Twin, configured, problem_of
from edge_daemon.settings import EdgeSettings

GOOD = DeviceModel(url="https://models.example/good.gguf", sha256="a" * 64)
OTHER = DeviceModel(url="https://models.example/other.gguf", sha256="b" * 64)


AGGREGATION = Aggregation(
    coupling=CouplingKind.INDEPENDENT,
    weighting=Weighting(rule=WeightingRule.CONTRAST, temperature=0.2, beta=0.75, gamma=0.25),
    max_published_tokens=32,
    nucleus=0.9,
    num_passages=6,
    passages_per_context=1,
)


def settings(folder: Path, **given: Any) -> EdgeSettings:
    return EdgeSettings(device="d1", data_folder=folder, **given)


def desired(version: str = "1", **given: Any) -> Desired:
    return Desired(configuration_version=version * 16, heartbeat_seconds=5.0, configuration=Configuration(**given))


def bring(twin: Twin, folder: Path, model: DeviceModel) -> None:
    """The file of a model, as if it had been fetched."""
    path = twin.model_file(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")


def test_what_is_wanted_wins_and_the_rest_stays(tmp_path: Path) -> None:
    own = settings(tmp_path, window=9, branches=3)
    wanted = Configuration(
        window=7,
        placement="cloud",
        log_level="debug",
        sampling=SamplingDefaults(temperature=0.0, top_p=0.5, max_tokens=11),
    )
    found = configured(own, wanted, GOOD)
    assert (found.window, found.branches, found.placement) == (7, 3, PlacementChoice.CLOUD)
    assert (found.log.level, found.log.format) == (LogLevel.DEBUG, own.log.format)
    assert (found.sampling.temperature, found.sampling.top_p, found.api.default_max_tokens) == (0.0, 0.5, 11)
    assert (found.model.url, found.model.sha256, found.model.path) == (GOOD.url, GOOD.sha256, None)
    assert found.model.num_sequences == own.model.num_sequences
    assert configured(own, Configuration(), None) == own


def test_what_both_ends_must_agree_on_is_taken_over(tmp_path: Path) -> None:
    found = configured(settings(tmp_path, branches=1), Configuration(aggregation=AGGREGATION), None)
    weighting = found.weighting.to_weighting()
    assert (weighting.rule, weighting.temperature, weighting.beta, weighting.gamma) == ("contrast", 0.2, 0.75, 0.25)
    assert (found.coupling, found.max_published_tokens, found.nucleus) == (CouplingKind.INDEPENDENT, 32, 0.9)
    assert (found.num_passages, found.passages_per_context) == (6, 1)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Configuration(aggregation=AGGREGATION), "branches 2 needs 14 sequences"),
        (Configuration(branches=16), "branches 16 needs 32 sequences .*num_sequences 8"),
        (Configuration(sampling=SamplingDefaults(max_tokens=2048)), "does not fit into model.context_length 2048"),
        (Configuration(branches=4, window=256), ""),
    ],
)
def test_what_cannot_work_has_a_reason(tmp_path: Path, given: Configuration, reason: str) -> None:
    found = problem_of(settings(tmp_path), given)
    assert bool(found) == bool(reason)
    assert re.search(reason, found)


def test_it_is_kept_over_restarts(tmp_path: Path) -> None:
    own = settings(tmp_path)
    twin = Twin(own)
    assert (twin.observed, twin.applied, twin.heartbeat_seconds) == ("", "", None)
    assert twin.take(desired(window=7))
    assert not twin.take(desired(window=7))
    again = Twin(own)
    assert (again.observed, again.applied) == ("1" * 16, "1" * 16)
    assert (again.settings.window, again.heartbeat_seconds) == (7, 5.0)


def test_what_cannot_be_changes_nothing(tmp_path: Path) -> None:
    twin = Twin(settings(tmp_path))
    twin.take(desired(window=7))
    twin.take(desired("2", window=8, branches=16))
    assert (twin.observed, twin.applied) == ("2" * 16, "")
    assert twin.settings.window == 32
    assert twin.problem


def test_another_model_is_applied_once_it_runs(tmp_path: Path) -> None:
    own = settings(tmp_path)
    twin = Twin(own)
    twin.take(desired(model=GOOD, window=7))
    assert twin.needs_model
    assert (twin.settings.window, twin.settings.model, twin.applied) == (7, own.model, "")
    assert Twin(own).model is None  # not here yet: a start must not wait for a network
    bring(twin, tmp_path, GOOD)
    twin.use_model()
    twin.keep_model()
    assert (twin.settings.model.sha256, twin.applied) == (GOOD.sha256, "1" * 16)
    assert Twin(own).model == GOOD


def test_the_model_before_runs_until_the_next_is_here(tmp_path: Path) -> None:
    own = settings(tmp_path)
    twin = Twin(own)
    twin.take(desired(model=GOOD))
    bring(twin, tmp_path, GOOD)
    twin.use_model()
    twin.keep_model()
    twin.take(desired("2", model=OTHER))
    assert Twin(own).model == GOOD


def test_a_model_that_cannot_be_loaded_gives_way_to_the_one_before(tmp_path: Path) -> None:
    own = settings(tmp_path)
    twin = Twin(own)
    assert not twin.refuse_model("the device's own model is bad")
    twin.take(desired(model=GOOD))
    bring(twin, tmp_path, GOOD)
    twin.use_model()
    twin.keep_model()
    twin.take(desired("2", model=OTHER))
    bring(twin, tmp_path, OTHER)
    twin.use_model()
    assert twin.refuse_model("no GGUF file")
    assert (twin.model, twin.problem, twin.applied) == (GOOD, "no GGUF file", "")
    again = Twin(own)
    assert (again.model, again.problem) == (GOOD, "no GGUF file")
    again.take(desired("3", model=GOOD))
    assert (again.problem, again.applied, again.needs_model) == ("", "3" * 16, False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"desired": 3}'])
def test_a_damaged_file_is_started_without(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "twin.json").write_bytes(content)
    twin = Twin(settings(tmp_path))
    assert twin.observed == ""
    assert twin.take(desired(window=7))
    assert Twin(settings(tmp_path)).settings.window == 7
