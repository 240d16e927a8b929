"""What the models of `triton_models/` are loaded with: their parameters, and the language model behind `causal_lm`."""

import asyncio
import json
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dragon_core.errors import SettingsError
from dragon_runtime.engines.llama.deliveries import ThreadDeliveries
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.hosting.loop_thread import LoopThread
from dragon_runtime.hosting.replies import Reply
from dragon_runtime.hosting.service import CausalLmService
from dragon_runtime.hosting.sessions import ServiceObserver
from dragon_runtime.models import bundled_model


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CausalLmParameters(_Parameters):
    """The parameters of `causal_lm/config.pbtxt`, where each is explained."""

    model_path: str = ""
    context_length: int = Field(default=2048, ge=128, le=1_048_576)
    num_sequences: int = Field(default=32, ge=1, le=256)
    num_threads: int = Field(default=0, ge=0, le=1024)
    num_gpu_layers: int = Field(default=0, ge=0, le=10_000)
    prefill_chunk: int = Field(default=64, ge=1, le=512)
    idle_seconds: float = Field(default=120.0, gt=0, le=86_400)


class EmbedderParameters(_Parameters):
    """The parameters of `embedder/config.pbtxt`."""

    uri: str = Field(default="bundled://all-minilm-l6-v2", min_length=1)


Parameters = TypeVar("Parameters", bound=_Parameters)


def parameters_of(model_config: str, cls: type[Parameters]) -> Parameters:
    """The parameters in a model configuration as Triton hands it over (JSON).

    Raises:
        SettingsError: one is unknown or has a bad value.
    """
    given = {name: value["string_value"] for name, value in json.loads(model_config).get("parameters", {}).items()}
    try:
        return cls.model_validate(given)
    except ValidationError as error:
        problems = "; ".join(f"{problem['loc'][0]}: {problem['msg']}" for problem in error.errors())
        raise SettingsError(f"config.pbtxt: {problems}") from error


class CausalLmRunner:
    """A language model with its service, on a thread of its own."""

    def __init__(self, parameters: CausalLmParameters, observer: ServiceObserver) -> None:
        """Load the model and step it a few times: when this returns it can answer.

        Raises:
            ModelError: no such file, damaged, or no memory for it.
        """
        self._thread = LoopThread("causal_lm")
        try:
            self._service = self._thread.run(_start(parameters, observer))
        except BaseException:
            self._thread.close()
            raise

    def handle(self, tensors: Tensors, reply: Reply) -> None:
        """Take a request; see `CausalLmService`."""
        self._service.handle(tensors, reply)

    def close(self) -> None:
        """End all sessions and free the model."""
        self._thread.run(self._service.close())
        self._thread.close()


async def _start(parameters: CausalLmParameters, observer: ServiceObserver) -> CausalLmService:
    engine = await LlamaEngine.load(
        Path(parameters.model_path) if parameters.model_path else bundled_model(),
        context_length=parameters.context_length,
        num_sequences=parameters.num_sequences,
        num_threads=parameters.num_threads or None,
        num_gpu_layers=parameters.num_gpu_layers,
        prefill_chunk=parameters.prefill_chunk,
        observer=observer,
        deliveries=ThreadDeliveries(asyncio.get_running_loop()),
    )
    return CausalLmService(
        engine,
        num_sequences=parameters.num_sequences,
        idle_seconds=parameters.idle_seconds,
        observer=observer,
    )
