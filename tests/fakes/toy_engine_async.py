"""The toy language model behind the `Engine` Protocol: it counts sequences and answers through the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from dragon_core.distribution import quantise_weight
from dragon_core.errors import CapacityError, EngineError, OurError, PromptTooLongError
from dragon_core.types import Command, Feed, Step, Vocabulary
from dragon_core.weighting import constant_weight
from dragon_runtime.engines.planned_branches import PlannedBranches
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener
from simulator.toy_engine import END, TOY_VOCABULARY, ToySequences

TOY_TEMPLATE = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}assistant:"
END_TEXT = "<end>"


class ToyEngineSession:
    """One answer; see `EngineSession`."""

    def __init__(
        self, engine: "ToyEngine", request: EngineRequest, on_step: StepListener, on_failure: FailureListener
    ) -> None:
        self._engine, self._on_step, self._on_failure = engine, on_step, on_failure
        self._plan = PlannedBranches(
            max_branches=request.max_branches, max_tokens=request.max_tokens, num_vocabulary=len(engine.vocabulary)
        )
        self._sequences = ToySequences(request.contexts, request.weighting, request.sampling, request.cut)
        weight = constant_weight(np.array([context.relevance for context in request.contexts]), request.weighting)
        self.constant_weight_level = None if weight is None else quantise_weight(weight)
        self.prefill_seconds = 0.0
        self._queue: deque[Command] = deque()
        self.num_sequences = num_sequences_of(request)
        self.is_closed = False

    def submit(self, commands: Sequence[Command]) -> None:
        """Queue commands; they run in order on the event loop, a feed takes a step's time."""
        if self.is_closed:
            raise OurError("the engine session is closed")
        for command in commands:
            problem = self._plan.plan(command)
            if problem is not None:
                raise OurError(f"{type(command).__name__}: {problem}")
            self._queue.append(command)
            if len(self._queue) == 1:
                asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        """Run the first command; it stays in the queue until it is done."""
        if self.is_closed:
            return
        command = self._queue[0]
        step = self._sequences.apply(command)
        if isinstance(command, Feed) and step is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(self._engine.step_seconds, self._done, partial(self._answer, command.ticket, step))
        else:
            self._done(lambda: None)

    def _answer(self, ticket: int, step: Step) -> None:
        if self._plan.is_wanted(ticket):
            self._on_step(ticket, step)

    def _done(self, tell: Callable[[], None]) -> None:
        if self.is_closed:
            return
        self._queue.popleft()
        if self._queue:
            asyncio.get_running_loop().call_soon(self._run)
        tell()

    def fail(self, error: Exception) -> None:
        """Nothing more will come."""
        self._on_failure(error)

    async def close(self) -> None:
        """Give the sequences back; safe to call twice."""
        self.is_closed = True
        self._engine.sessions.discard(self)


class ToyEngine:
    """See `Engine`. Prompts are in place once every session opened before is. `close` fails what is open."""

    def __init__(self, *, num_sequences: int = 8, context_length: int = 256, step_seconds: float = 0.0) -> None:
        self._num_sequences, self.context_length = num_sequences, context_length
        self._prefilling = asyncio.Lock()
        self._is_closed = False
        self.sessions: set[ToyEngineSession] = set()
        self.vocabulary: Vocabulary = TOY_VOCABULARY
        self.step_seconds = step_seconds
        self.decode_seconds = step_seconds or 0.001
        self.chat_template = TOY_TEMPLATE
        self.bos_text = ""
        self.eos_text = END_TEXT

    @property
    def num_free_sequences(self) -> int:
        return self._num_sequences - sum(session.num_sequences for session in self.sessions)

    def tokenise(self, text: str, *, special: bool) -> list[int]:
        """See `toy_tokens`."""
        return toy_tokens(text, special=special)

    async def open(
        self, request: EngineRequest, *, on_step: StepListener, on_failure: FailureListener
    ) -> ToyEngineSession:
        """Take the sequences and wait for the turn to prefill."""
        self._require_sound(request)
        session = ToyEngineSession(self, request, on_step, on_failure)
        if session.num_sequences > self.num_free_sequences:
            raise CapacityError(
                f"the answer needs {session.num_sequences} sequences, {self.num_free_sequences} are free",
                requested=session.num_sequences,
                available=self.num_free_sequences,
            )
        self.sessions.add(session)
        try:
            async with self._prefilling:
                for _ in request.contexts:
                    await asyncio.sleep(0)
                    self._require_open()
        except BaseException:
            await session.close()
            raise
        return session

    def _require_sound(self, request: EngineRequest) -> None:
        self._require_open()
        prompts = [context.tokens for context in request.contexts]
        if request.bare_prompt is not None:
            prompts.append(request.bare_prompt)
        if not request.contexts or not all(prompts):
            raise OurError("no prompt may be empty")
        if any(token not in range(len(self.vocabulary)) for prompt in prompts for token in prompt):
            raise OurError("a token beyond the vocabulary")
        longest = max(map(len, prompts)) + request.max_tokens
        if longest > self.context_length:
            raise PromptTooLongError(num_tokens=longest, max_tokens=self.context_length)

    def _require_open(self) -> None:
        if self._is_closed:
            raise EngineError("the toy engine was closed")

    async def close(self) -> None:
        """Stop; sessions that are open fail."""
        if self._is_closed:
            return
        self._is_closed = True
        self.fail_all()

    def fail_all(self) -> None:
        """Give up every open session."""
        for session in tuple(self.sessions):
            asyncio.get_running_loop().call_soon(partial(session.fail, EngineError("the toy engine was closed")))


def num_sequences_of(request: EngineRequest) -> int:
    """One per context and branch, and as many for the bare prompt where the rule needs it."""
    return (len(request.contexts) + (request.bare_prompt is not None)) * request.max_branches


def toy_tokens(text: str, *, special: bool) -> list[int]:
    """A token per character, never the end token; with `special`, `<end>` is that one."""
    pieces = text.split(END_TEXT) if special else [text]
    tokens: list[int] = []
    for at, piece in enumerate(pieces):
        tokens += [END] * (at > 0) + [1 + ord(character) % (len(TOY_VOCABULARY) - 1) for character in piece]
    return tokens
