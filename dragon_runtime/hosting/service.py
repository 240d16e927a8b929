"""What `triton_models/causal_lm/1/model.py` does with its requests, without anything of Triton in it.

The service has a thread with an event loop of its own. What its sessions are is in `sessions`.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

import numpy as np

from dragon_core.errors import DragonError, EngineError
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.triton.description import Description, description_tensors
from dragon_runtime.engines.triton.failures import failure_text
from dragon_runtime.engines.triton.opening import request_of
from dragon_runtime.engines.triton.requests import Operation, operation_of
from dragon_runtime.engines.triton.tensors import Tensors, integer_in, text_in
from dragon_runtime.hosting.loop_thread import ServiceTasks
from dragon_runtime.hosting.probe import require_decoding
from dragon_runtime.hosting.replies import Reply
from dragon_runtime.hosting.sessions import HostedSessions, ServiceObserver

logger = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
"""One decode takes far less, whatever the model; who asks has longer to wait."""


class CausalLmService:
    """Serves sessions on one engine. `handle` is the only method that another thread may call."""

    def __init__(
        self, engine: LlamaEngine, *, num_sequences: int, idle_seconds: float, observer: ServiceObserver
    ) -> None:
        """`idle_seconds`: how long a session may go without a request before its sequences are taken back."""
        self._engine, self._num_sequences = engine, num_sequences
        self._loop = asyncio.get_running_loop()
        self._tasks = ServiceTasks()
        self._sessions = HostedSessions(
            engine, self._tasks, num_sequences=num_sequences, idle_seconds=idle_seconds, observer=observer
        )

    async def close(self) -> None:
        """End every session, then the engine."""
        await self._sessions.close()
        await self._tasks.wait()
        await self._engine.close()

    def handle(self, tensors: Tensors, reply: Reply) -> None:
        """Take a request; `reply` is answered now or later, on another thread."""
        self._answered(reply, lambda: self._dispatch(tensors, reply))

    def _answered(self, reply: Reply, act: Callable[[], None]) -> None:
        """Do it; what is wrong with it is the answer."""
        try:
            act()
        except DragonError as error:
            reply.fail(failure_text(error))
        except Exception as error:
            logger.exception("a request could not be served")
            reply.fail(failure_text(EngineError(f"the model could not serve the request: {error}")))

    def _dispatch(self, tensors: Tensors, reply: Reply) -> None:
        operation, number = operation_of(tensors)
        if operation is Operation.RUN:
            self._sessions.run(number, tensors)
            reply.finish()
            return
        perform = partial(self._perform, operation, number, tensors, reply)
        self._loop.call_soon_threadsafe(self._answered, reply, perform)

    def _perform(self, operation: Operation, number: int, tensors: Tensors, reply: Reply) -> None:
        match operation:
            case Operation.DESCRIBE:
                reply.send(description_tensors(self._description(), self._engine.vocabulary), is_final=True)
            case Operation.TOKENISE:
                self._tasks.start(self._tokenise(tensors, reply))
            case Operation.OPEN:
                self._sessions.open(number, request_of(tensors), reply)
            case Operation.CLOSE:
                self._sessions.end(number)
                reply.finish()
            case Operation.PROBE:
                self._tasks.start(self._probe(reply))

    def _description(self) -> Description:
        engine = self._engine
        return Description(
            context_length=engine.context_length,
            num_sequences=self._num_sequences,
            decode_seconds=engine.decode_seconds,
            chat_template=engine.chat_template,
            bos_text=engine.bos_text,
            eos_text=engine.eos_text,
        )

    async def _tokenise(self, tensors: Tensors, reply: Reply) -> None:
        try:
            text, special = text_in(tensors, "TEXT"), bool(integer_in(tensors, "SPECIAL"))
            tokens = await asyncio.to_thread(self._engine.tokenise, text, special=special)
        except DragonError as error:
            reply.fail(failure_text(error))
            return
        reply.send({"TOKEN_IDS": np.array(tokens, dtype=np.int32)}, is_final=True)

    async def _probe(self, reply: Reply) -> None:
        started = self._loop.time()
        try:
            await require_decoding(self._engine, seconds=PROBE_SECONDS)
        except DragonError as error:
            reply.fail(failure_text(error))
            return
        finally:
            self._sessions.count()
        seconds = np.array([self._loop.time() - started, self._engine.decode_seconds], dtype=np.float64)
        reply.send({"SECONDS": seconds}, is_final=True)
