"""The device's desired configuration from the operator, kept across restarts, and the resulting settings.

The desired configuration overrides the device's own settings. It is applied only if it can work: whole or not at all.
"""

import logging
from pathlib import Path
from typing import Any

import msgspec

from dragon_core.fleet.messages import Configuration, Desired, DeviceModel
from dragon_runtime.settings import LogLevel, ModelSettings, PlacementChoice
from dragon_runtime.settings.spellings import changes_of
from edge_daemon.settings import EdgeSettings

logger = logging.getLogger(__name__)

FILE = "twin.json"
MODELS = "models"


class _State(msgspec.Struct, frozen=True, kw_only=True):
    """`model` is the last one of the operator's that was in use, `bad_model` the digest of one that cannot be."""

    desired: Desired | None = None
    model: DeviceModel | None = None
    bad_model: str = ""
    error: str = ""


class Twin:
    """The twin of one device. `own` are the device's settings as its file and environment say."""

    def __init__(self, own: EdgeSettings) -> None:
        self._own = own
        self._path = own.data_folder / FILE
        self._state = self._load()
        self.model = self._model_to_start_with()
        """The operator's model that runs, or None for the device's own."""

    @property
    def settings(self) -> EdgeSettings:
        """The settings in effect: the device's own and the desired ones, with the model that runs."""
        usable = self._state.desired is not None and not self.problem
        configuration = self._state.desired.configuration if self._state.desired and usable else Configuration()
        return configured(self._own, configuration, self.model)

    @property
    def observed(self) -> str:
        """Version of the desired configuration; empty before the first one."""
        return "" if self._state.desired is None else self._state.desired.configuration_version

    @property
    def applied(self) -> str:
        """Version of what is in use, which is the observed one or none."""
        return "" if self.problem or self.needs_model else self.observed

    @property
    def heartbeat_seconds(self) -> float | None:
        """Heartbeat interval that the operator wants; None before the operator has set one."""
        return None if self._state.desired is None else self._state.desired.heartbeat_seconds

    @property
    def wanted_model(self) -> DeviceModel | None:
        """The desired model; None for the device's own."""
        return None if self._state.desired is None else self._state.desired.configuration.model

    @property
    def needs_model(self) -> bool:
        """Whether the desired model differs from the one that runs."""
        return not self.problem and self.wanted_model != self.model

    @property
    def problem(self) -> str:
        """Why the desired configuration cannot work; empty if it can."""
        if self._state.desired is None:
            return ""
        wanted = self.wanted_model
        if wanted is not None and wanted.sha256 == self._state.bad_model:
            return self._state.error
        return problem_of(self._own, self._state.desired.configuration)

    def take(self, desired: Desired) -> bool:
        """Set the desired configuration; false if it is the same as before."""
        if desired == self._state.desired:
            return False
        self._save(msgspec.structs.replace(self._state, desired=desired, bad_model="", error=""))
        return True

    def model_file(self, model: DeviceModel) -> Path:
        """Path of a downloaded model."""
        return self._own.data_folder / MODELS / f"{model.sha256}.gguf"

    def use_model(self) -> None:
        """The wanted model is here: it runs from the next start of the engine on."""
        self.model = self.wanted_model

    def keep_model(self) -> None:
        """The model that was to run does."""
        if self._state.model != self.model:
            self._save(msgspec.structs.replace(self._state, model=self.model))

    def refuse_model(self, reason: str) -> bool:
        """The operator's model cannot be loaded: go back to the one before; false where the operator's does not run."""
        if self.model is None:
            return False
        bad, before = self.model, self._state.model
        self._save(msgspec.structs.replace(self._state, bad_model=bad.sha256, error=reason[:500]))
        self.model = before if before != bad and before is not None and self.model_file(before).exists() else None
        return True

    def _model_to_start_with(self) -> DeviceModel | None:
        """The wanted one where it is here already; a device without a network must start all the same."""
        wanted = self.wanted_model
        if wanted is None or self.problem:
            return self._state.model if self.problem and self._is_here(self._state.model) else None
        if self._is_here(wanted):
            return wanted
        return self._state.model if self._is_here(self._state.model) else None

    def _is_here(self, model: DeviceModel | None) -> bool:
        return model is not None and model.sha256 != self._state.bad_model and self.model_file(model).exists()

    def _load(self) -> _State:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=_State)
        except FileNotFoundError:
            return _State()
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("%s cannot be read (%s): waiting for the configuration from the operator", self._path, error)
            return _State()

    def _save(self, state: _State) -> None:
        self._state = state
        kept = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(msgspec.json.format(msgspec.json.encode(state)))
            kept.replace(self._path)
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): after a restart the operator sends the configuration again",
                self._path,
                error,
            )


def configured(own: EdgeSettings, configuration: Configuration, model: DeviceModel | None) -> EdgeSettings:
    """The device's own settings, overridden by the desired ones; the model is decided separately."""
    changes = {} if configuration.aggregation is None else changes_of(configuration.aggregation)
    if configuration.window is not None:
        changes["window"] = configuration.window
    if configuration.branches is not None:
        changes["branches"] = configuration.branches
    if configuration.placement is not None:
        changes["placement"] = PlacementChoice(configuration.placement)
    if configuration.log_level is not None:
        changes["log"] = own.log.model_copy(update={"level": LogLevel(configuration.log_level)})
    sampling = configuration.sampling
    if sampling is not None:
        given = {"temperature": sampling.temperature, "top_p": sampling.top_p}
        given = {name: value for name, value in given.items() if value is not None}
        changes["sampling"] = own.sampling.model_copy(update=given)
        if sampling.max_tokens is not None:
            changes["api"] = own.api.model_copy(update={"default_max_tokens": sampling.max_tokens})
    if model is not None:
        source: dict[str, Any] = {"path": None, "url": model.url, "sha256": model.sha256}
        changes["model"] = ModelSettings.model_validate({**own.model.model_dump(), **source})
    return own.model_copy(update=changes)


def problem_of(own: EdgeSettings, configuration: Configuration) -> str:
    """Why a configuration cannot work on this device; empty if it can."""
    wanted = configured(own, configuration, None)
    num_contexts = wanted.max_contexts + int(wanted.weighting.rule.needs_bare_prompt)
    needed = num_contexts * wanted.branches
    if needed > own.model.num_sequences:
        return (
            f"branches {wanted.branches} needs {needed} sequences for an answer, this device has model.num_sequences "
            f"{own.model.num_sequences}: set fewer branches, or increase num_sequences on the device"
        )
    sampling = configuration.sampling
    max_tokens = None if sampling is None else sampling.max_tokens
    if max_tokens is not None and max_tokens >= own.model.context_length:
        return (
            f"sampling.maxTokens {max_tokens} does not fit into model.context_length {own.model.context_length} "
            "of this device: set a lower maxTokens, or increase context_length on the device"
        )
    return ""
