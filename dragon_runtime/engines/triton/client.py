"""A connection to Triton: a stream per session or question, and loading of models. Only errors of ours leave."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import grpc.aio
import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from dragon_core.errors import DragonError, EngineError, EngineLostError
from dragon_runtime.engines.triton.failures import failure_of
from dragon_runtime.engines.triton.tensors import Tensors
from dragon_runtime.outgoing import GRPC_WITHOUT_PROXY
from dragon_runtime.process.tasks import end_tasks
from dragon_runtime.settings.groups import TritonSettings

logger = logging.getLogger(__name__)

RELOAD_SECONDS = 300.0
LOOK_SECONDS = 5.0
ANSWER_SECONDS = 30.0
DEAD_PROCESS = re.compile("stub process", re.IGNORECASE)
"""Triton 2.51 has no code for a Python model whose process died: its message names the stub process."""
CONNECT_OPTIONS = [
    GRPC_WITHOUT_PROXY,
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 5000),
]
"""A server that is back is found within seconds, and one that is away is not pestered."""


class TritonClient:
    """Made on the event loop that uses it. The connection comes and goes by itself: each call finds out."""

    def __init__(self, settings: TritonSettings) -> None:
        self.address = settings.address
        self._client = triton.InferenceServerClient(
            url=settings.address,
            ssl=settings.uses_tls,
            root_certificates=_path(settings.ca_file),
            private_key=_path(settings.key_file),
            certificate_chain=_path(settings.certificate_file),
            channel_args=CONNECT_OPTIONS,
        )
        self._loop = asyncio.get_running_loop()
        self._reloads: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Hang up."""
        await end_tasks(self._reloads.values())
        await self._client.close()

    async def stream(self, model: str, requests: AsyncIterator[Tensors]) -> AsyncIterator[Tensors]:
        """One stream to a model; it ends in band, when no request is left and all were answered.

        Raises:
            DragonError: a request was refused, or the connection or the server is gone.
        """

        async def inputs() -> AsyncIterator[dict[str, Any]]:
            async for tensors in requests:
                yield {"model_name": model, "inputs": [_input(name, tensor) for name, tensor in tensors.items()]}

        try:
            async for result, error in self._client.stream_infer(inputs()):
                if error is not None:
                    raise error
                yield _outputs(result)
        except grpc.aio.AioRpcError as error:
            raise EngineLostError(f"the stream to Triton at {self.address} ended: {error.details()}") from error
        except InferenceServerException as error:
            raise self._failure(model, error) from error

    async def ask(self, model: str, tensors: Tensors) -> Tensors:
        """The one answer to a request.

        Raises:
            DragonError: it was refused, or the connection or the server is gone.
        """

        async def once() -> AsyncIterator[Tensors]:
            yield tensors

        # Read to its end: a stream that is cancelled as it ends can take the server with it.
        answers = [answer async for answer in self.stream(model, once())]
        if len(answers) != 1:
            raise EngineError(f"{model} on Triton gave {len(answers)} answers")
        return answers[0]

    async def infer(self, model: str, tensors: Tensors, *, outputs: tuple[str, ...]) -> Tensors:
        """A batch through a model that answers once.

        Raises:
            DragonError: it was refused, or the connection or the server is gone.
        """
        try:
            result = await self._client.infer(
                model,
                [_input(name, tensor) for name, tensor in tensors.items()],
                outputs=[triton.InferRequestedOutput(name) for name in outputs],
            )
        except InferenceServerException as error:
            raise self._failure(model, error) from error
        return _outputs(result)

    def wait_for(self, answer: Coroutine[Any, Any, Tensors]) -> Tensors:
        """The answer, for a caller on another thread than the client's.

        Raises:
            EngineLostError: it does not come.
        """
        asking = asyncio.run_coroutine_threadsafe(answer, self._loop)
        try:
            return asking.result(ANSWER_SECONDS)
        except TimeoutError as error:
            asking.cancel()
            raise EngineLostError(f"Triton at {self.address} did not answer in {ANSWER_SECONDS:g} s") from error

    async def reload(self, model: str) -> None:
        """Unload a model and load it again; sessions on it fail.

        Raises:
            EngineLostError: it cannot be loaded, or the server does not allow it.
        """
        try:
            await self._client.unload_model(model, client_timeout=LOOK_SECONDS)
            await self._client.load_model(model, client_timeout=RELOAD_SECONDS)
        except InferenceServerException as error:
            raise EngineLostError(f"{model} cannot be loaded by Triton at {self.address}: {error}") from error

    def _failure(self, model: str, error: InferenceServerException) -> DragonError:
        """The error of ours; a model whose process died is loaded again meanwhile, which Triton does not do itself."""
        said = error.message() or str(error)
        found = failure_of(said)
        if not isinstance(found, EngineLostError):
            return found
        if DEAD_PROCESS.search(said) and model not in self._reloads:
            logger.warning("the process of %s died; it is loaded again", model)
            task = self._loop.create_task(self._revive(model), name=f"reload {model}")
            self._reloads[model] = task
        return EngineLostError(f"{found} ({self.address})")

    async def _revive(self, model: str) -> None:
        try:
            await self.reload(model)
        except EngineLostError as error:
            logger.warning("%s", error)
        finally:
            del self._reloads[model]


def _path(path: object) -> str | None:
    return None if path is None else str(path)


def _input(name: str, tensor: NDArray[np.generic]) -> Any:
    given = triton.InferInput(name, list(tensor.shape), np_to_triton_dtype(tensor.dtype))
    given.set_data_from_numpy(tensor)
    return given


def _outputs(result: Any) -> Mapping[str, NDArray[np.generic]]:
    return {output.name: result.as_numpy(output.name) for output in result.get_response().outputs}
