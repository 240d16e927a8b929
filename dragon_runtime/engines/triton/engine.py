"""The language model on Triton: each session is one stream to `causal_lm`; see docs/triton.md."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np

from dragon_core.errors import DragonError, EngineError, EngineLostError, OurError
from dragon_core.types import Command, Vocabulary
from dragon_runtime.engines.planned_branches import PlannedBranches
from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.description import Description, description_of
from dragon_runtime.engines.triton.opening import open_tensors
from dragon_runtime.engines.triton.requests import Operation, command_numbers, request_tensor
from dragon_runtime.engines.triton.steps import step_of
from dragon_runtime.engines.triton.tensors import Tensors, text
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener
from dragon_runtime.process.tasks import end_tasks, wait_at_most

logger = logging.getLogger(__name__)

MODEL = "causal_lm"
PING_SECONDS = 2.0
"""A model whose process died answers nothing more: only a new request tells."""
CLOSE_SECONDS = 10.0


class TritonEngine:
    """Sessions of a language model on a Triton server; see `Engine`. Made by `connect`."""

    def __init__(self, client: TritonClient, description: Description, vocabulary: Vocabulary) -> None:
        self._client, self._description, self._vocabulary = client, description, vocabulary
        self._decode_seconds = description.decode_seconds
        self._sessions: set[TritonSession] = set()
        self._is_closed = False

    @classmethod
    async def connect(cls, client: TritonClient) -> "TritonEngine":
        """Ask the model what it is.

        Raises:
            DragonError: the server or the model is not there.
        """
        description, vocabulary = description_of(await client.ask(MODEL, _request(Operation.DESCRIBE)))
        return cls(client, description, vocabulary)

    @property
    def vocabulary(self) -> Vocabulary:
        return self._vocabulary

    @property
    def context_length(self) -> int:
        return self._description.context_length

    @property
    def decode_seconds(self) -> float:
        return self._decode_seconds

    @property
    def chat_template(self) -> str:
        return self._description.chat_template

    @property
    def bos_text(self) -> str:
        return self._description.bos_text

    @property
    def eos_text(self) -> str:
        return self._description.eos_text

    def tokenise(self, text_to_split: str, *, special: bool) -> list[int]:
        """Token ids of a text; see `Engine`. Blocks for a round trip: never call it on the event loop."""
        asked = {
            **_request(Operation.TOKENISE),
            "TEXT": text(text_to_split),
            "SPECIAL": np.array([special], dtype=np.int64),
        }
        answer = self._client.wait_for(self._client.ask(MODEL, asked))
        return [int(token) for token in answer["TOKEN_IDS"]]

    async def open(
        self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener
    ) -> "TritonSession":
        """Prefill all contexts; see `Engine`.

        Raises:
            EngineError: the server or the model is not there.
        """
        if self._is_closed:
            raise EngineError("the connection to Triton was closed")
        session = TritonSession(self._client, request, self._vocabulary, on_step=on_step, on_failure=on_failure)
        self._sessions.add(session)
        session.on_end = self._sessions.discard
        try:
            await session.opened
        except BaseException:
            await session.close()
            raise
        self._decode_seconds = session.decode_seconds
        return session

    async def close(self) -> None:
        """End every session; safe to call twice. The client is its maker's."""
        self._is_closed = True
        for session in list(self._sessions):
            session.fail(EngineError("the connection to Triton was closed"))
            await session.close()


class TritonSession:
    """One answer's sequences on Triton; see `EngineSession`."""

    def __init__(
        self,
        client: TritonClient,
        request: EngineRequest,
        vocabulary: Vocabulary,
        *,
        on_step: StepListener,
        on_failure: FailureListener,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._client, self._on_step, self._on_failure = client, on_step, on_failure
        self._num_contexts, self._num_vocabulary = len(request.contexts), len(vocabulary)
        self._plan = PlannedBranches(
            max_branches=request.max_branches, max_tokens=request.max_tokens, num_vocabulary=len(vocabulary)
        )
        self.number = secrets.randbits(63)
        self._waiting: list[Command] = []
        self._changed = asyncio.Event()
        self._is_closed = self._has_failed = self._is_over = False
        self._constant_weight_level: int | None = None
        self._prefill_seconds = self.decode_seconds = 0.0
        self.opened: asyncio.Future[None] = loop.create_future()
        self.on_end: Callable[[TritonSession], None] = lambda _: None
        self._talk_task = loop.create_task(self._talk(request), name="triton session")

    @property
    def constant_weight_level(self) -> int | None:
        return self._constant_weight_level

    @property
    def prefill_seconds(self) -> float:
        return self._prefill_seconds

    def submit(self, commands: Sequence[Command]) -> None:
        """Queue commands; see `EngineSession`."""
        if self._is_closed:
            raise OurError("the engine session is closed")
        for command in commands:
            problem = self._plan.plan(command)
            if problem is not None:
                raise OurError(f"{type(command).__name__}: {problem}")
            self._waiting.append(command)
            self._changed.set()

    async def close(self) -> None:
        """Have the model free every sequence; see `EngineSession`."""
        self._is_closed = True
        self._changed.set()
        done, _ = await asyncio.wait({self._talk_task}, timeout=CLOSE_SECONDS)
        if not done:  # the server hangs: nothing is left but to hang up
            await end_tasks([self._talk_task])

    def fail(self, error: Exception) -> None:
        """Nothing more will come; told once."""
        if self._has_failed or self._is_closed:
            return
        self._has_failed = True
        if self.opened.done():
            self._on_failure(error)
        else:
            self.opened.set_exception(error)

    async def _talk(self, request: EngineRequest) -> None:
        try:
            async for tensors in self._client.stream(MODEL, self._requests(request)):
                self._take(tensors)
        except DragonError as error:
            self.fail(error)
        except Exception as error:
            logger.exception("a session on Triton failed")
            self.fail(EngineLostError(f"the session on Triton failed: {error}"))
        else:
            self.fail(EngineError("Triton ended the session"))
        finally:
            self._is_over = True
            self._changed.set()
            if not self.opened.done():
                self.opened.cancel()
            self.on_end(self)

    async def _requests(self, request: EngineRequest) -> AsyncIterator[Tensors]:
        """Until the model said that the session is over: a stream must not be left before."""
        yield {**self._request(Operation.OPEN), **open_tensors(request)}
        has_closed = False
        while not self._is_over:
            self._changed.clear()
            can_run = self.opened.done() and not self._is_closed
            if self._is_closed and not has_closed:
                has_closed = True
                yield self._request(Operation.CLOSE)
            elif can_run and self._waiting:
                commands, self._waiting = self._waiting, []
                yield self._run(commands)
            elif not await wait_at_most(self._changed.wait(), PING_SECONDS) and can_run:  # time for a sign of life
                yield self._run(())

    def _request(self, operation: Operation) -> Tensors:
        return _request(operation, self.number)

    def _run(self, commands: Sequence[Command]) -> Tensors:
        return {"REQUEST": request_tensor(Operation.RUN, self.number, command_numbers(commands))}

    def _take(self, tensors: Tensors) -> None:
        if "STEP" in tensors:
            ticket, step = step_of(tensors, num_contexts=self._num_contexts, num_vocabulary=self._num_vocabulary)
            if not self._is_closed and self._plan.is_wanted(ticket):
                self._on_step(ticket, step)
        elif "SECONDS" in tensors:
            self._prefill_seconds, self.decode_seconds = tensors["SECONDS"].tolist()
            levels = tensors["CONSTANT_WEIGHT_LEVEL"].tolist()
            self._constant_weight_level = levels[0] if levels else None
            if not self.opened.done():
                self.opened.set_result(None)
            self._changed.set()
        elif "CLOSED" in tensors:
            self._is_over = True
            self._changed.set()


def _request(operation: Operation, session: int = 0) -> Tensors:
    return {"REQUEST": request_tensor(operation, session)}
