"""One answer's sequences on an engine in this process. The thread that decodes them is `llama_engine`'s."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dragon_core.distribution import quantise_weight
from dragon_core.errors import EngineError, OurError
from dragon_core.types import BranchId, Command, Drop, Feed, Fork, Rollback, Step
from dragon_core.weighting import constant_weight
from dragon_runtime.engines.llama.branches import SessionSequences
from dragon_runtime.engines.planned_branches import PlannedBranches
from dragon_runtime.engines.publishing import publish_step
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener


@dataclass(frozen=True, slots=True)
class RunningFeed:
    """A feed in the batch that is being decoded: its first token is at `position` of `branch`, -1 without a token.

    Without a branch nothing undoes it: it is a piece of a prompt, or a copy is to be made of what it adds.
    `ahead`: its tokens while nobody has asked for them.
    """

    branch: BranchId | None
    position: int = -1
    ahead: tuple[int, ...] = ()


class LlamaSession:
    """One answer's sequences; see `EngineSession`. `sequences` and what follows it belong to the engine's thread.

    `inbox` and `running`, of the running batch what this session still needs, are guarded by the engine's lock.
    """

    def __init__(
        self,
        request: EngineRequest,
        sequences: Sequence[int],
        *,
        num_vocabulary: int,
        prefill_chunk: int,
        enqueue: Callable[["LlamaSession", Sequence[Command]], None],
        release: Callable[["LlamaSession"], "asyncio.Future[None]"],
        on_step: StepListener,
        on_failure: FailureListener,
    ) -> None:
        self._enqueue, self._release = enqueue, release
        self._on_step, self._on_failure = on_step, on_failure
        self._plan = PlannedBranches(
            max_branches=request.max_branches, max_tokens=request.max_tokens, num_vocabulary=num_vocabulary
        )
        self._plan_lock = threading.Lock()
        weight = constant_weight(np.array([context.relevance for context in request.contexts]), request.weighting)
        self._constant_weight_level = None if weight is None else quantise_weight(weight)
        self._prefill_seconds = 0.0
        self._is_closed = self._has_told_failure = False
        self.prefilled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.inbox: list[Command] = []
        self.running: list[RunningFeed] = []
        self.sequences = SessionSequences(request, sequences, prefill_chunk=prefill_chunk)
        self.prompt_logits: list[NDArray[np.float32]] = []
        self.first_step: Step | None = None
        self.started_at = time.perf_counter()
        self.prefill_started_at: float | None = None
        self.has_failed = False

    @property
    def constant_weight_level(self) -> int | None:
        return self._constant_weight_level

    @property
    def prefill_seconds(self) -> float:
        return self._prefill_seconds

    @property
    def has_work(self) -> bool:
        """Whether the thread has something to do for it. With the engine's lock held."""
        return bool(self.inbox) or self.first_step is None or self.sequences.num_waiting > 0

    @property
    def num_waiting(self) -> int:
        """Commands that were submitted and not run yet."""
        return len(self.inbox) + self.sequences.num_waiting

    def submit(self, commands: Sequence[Command]) -> None:
        """Queue commands; see `EngineSession`. Safe from every thread."""
        if self._is_closed:
            raise OurError("the engine session is closed")
        for at, command in enumerate(commands):
            with self._plan_lock:
                problem = self._plan.plan(command)
            if problem is not None:
                self._enqueue(self, commands[:at])
                raise OurError(f"{type(command).__name__}: {problem}")
        self._enqueue(self, commands)

    def give_up(self, commands: Sequence[Command]) -> None:
        """Forget what of the running batch these commands undo. With the engine's lock held."""
        for command in commands:
            match command:
                case Feed(_, branch, tokens):
                    self.running = [
                        replace(at, ahead=()) if at.branch == branch else at
                        for at in self.running
                        if at.branch != branch or at.ahead in ((), tokens)
                    ]
                case Fork(source, _):
                    self.running = [
                        RunningFeed(None) if at.branch == source and not at.ahead else at for at in self.running
                    ]
                case Rollback(branch, position):
                    self.running = [at for at in self.running if at.branch != branch or at.position < position]
                case Drop(branch):
                    self.running = [at for at in self.running if at.branch != branch]

    async def close(self) -> None:
        """Free every sequence; see `EngineSession`."""
        if not self._is_closed:
            self._is_closed = True
            await asyncio.shield(self._release(self))

    def publish(self, logits: Sequence[NDArray[np.float32]]) -> Step:
        """Mix one step's logits; see `publish_step`.

        Raises:
            EngineError: logits that are no numbers.
        """
        if not np.isfinite([row.max() for row in logits]).all():
            raise EngineError("the language model computed nan or infinity: its file may be damaged; get it again")
        return publish_step(self.sequences.request, logits)

    # The rest is called on the event loop with what the thread found.

    def set_prefilled(self, seconds: float) -> None:
        """The prompts are in place."""
        self._prefill_seconds = seconds
        if not self.prefilled.done():
            self.prefilled.set_result(None)

    def deliver(self, ticket: int, step: Step) -> None:
        """Answer a ticket that is still wanted; on a thread of answers where the listener is elsewhere."""
        with self._plan_lock:
            is_wanted = not self._is_closed and self._plan.is_wanted(ticket)
        if is_wanted:
            self._on_step(ticket, step)

    def fail(self, error: Exception) -> None:
        """Nothing more will come; told once."""
        if self._is_closed or self._has_told_failure:
            return
        self._has_told_failure = True
        if self.prefilled.done():
            self._on_failure(error)
        else:
            self.prefilled.set_exception(error)
