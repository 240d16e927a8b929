"""One answer's sequences on an engine in this process, as whoever opened it has them."""

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from dragon_core.distribution import quantise_weight
from dragon_core.errors import OurError, PromptTooLongError
from dragon_core.types import Command, Step
from dragon_core.weighting import constant_weight
from dragon_runtime.engines.llama.decoding import Decoding
from dragon_runtime.engines.llama.submitted import Submitted
from dragon_runtime.engines.llama.tickets import Tickets
from dragon_runtime.interfaces import EngineRequest, FailureListener, StepListener


class LlamaSession:
    """See `EngineSession`. Its own fields belong to the event loop, what it holds to others.

    `tickets` has a lock of its own, `submitted` is guarded by the engine's, `decoding` is the engine's thread's.
    """

    def __init__(
        self,
        request: EngineRequest,
        sequences: Sequence[int],
        *,
        num_vocabulary: int,
        prefill_chunk: int,
        submit: Callable[["LlamaSession", Sequence[Command]], None],
        release: Callable[["LlamaSession"], "asyncio.Future[None]"],
        on_step: StepListener,
        on_failure: FailureListener,
    ) -> None:
        self._submit, self._release, self._on_failure = submit, release, on_failure
        weight = constant_weight(np.array([context.relevance for context in request.contexts]), request.weighting)
        self._constant_weight_level = None if weight is None else quantise_weight(weight)
        self._prefill_seconds = 0.0
        self._has_told_failure = False
        self.prefilled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tickets = Tickets(request, num_vocabulary=num_vocabulary, on_step=on_step)
        self.submitted = Submitted()
        self.decoding = Decoding(request, sequences, prefill_chunk=prefill_chunk)

    @property
    def constant_weight_level(self) -> int | None:
        return self._constant_weight_level

    @property
    def prefill_seconds(self) -> float:
        return self._prefill_seconds

    @property
    def has_work(self) -> bool:
        """Whether the engine's thread has something to do for it. With the engine's lock held."""
        decoding = self.decoding
        return bool(self.submitted.inbox) or decoding.first_step is None or decoding.sequences.num_waiting > 0

    @property
    def num_waiting(self) -> int:
        """Commands that were submitted and not run yet."""
        return len(self.submitted.inbox) + self.decoding.sequences.num_waiting

    def submit(self, commands: Sequence[Command]) -> None:
        """Queue commands; see `EngineSession`. Safe from every thread."""
        if self.tickets.is_closed:
            raise OurError("the engine session is closed")
        for at, command in enumerate(commands):
            problem = self.tickets.plan(command)
            if problem is not None:
                self._submit(self, commands[:at])
                raise OurError(f"{type(command).__name__}: {problem}")
        self._submit(self, commands)

    async def close(self) -> None:
        """Free every sequence; see `EngineSession`."""
        if not self.tickets.is_closed:
            self.tickets.close()
            await asyncio.shield(self._release(self))

    def deliver(self, ticket: int, step: Step) -> None:
        """Answer a ticket that is still wanted; on the event loop, or on a thread for answers."""
        self.tickets.answer(ticket, step)

    # The rest is called on the event loop with what the engine's thread found.

    def set_prefilled(self, seconds: float) -> None:
        """The prompts are in place."""
        self._prefill_seconds = seconds
        if not self.prefilled.done():
            self.prefilled.set_result(None)

    def fail(self, error: Exception) -> None:
        """Nothing more will come; told once."""
        if self.tickets.is_closed or self._has_told_failure:
            return
        self._has_told_failure = True
        if self.prefilled.done():
            self._on_failure(error)
        else:
            self.prefilled.set_exception(error)


def require_sound(request: EngineRequest, *, num_vocabulary: int, context_length: int) -> None:
    """Check that a session can be opened, if there is room for it.

    Raises:
        OurError: no context, an empty prompt, or a token beyond the vocabulary. PromptTooLongError: it does not fit.
    """
    prompts = request.prompts
    if not request.contexts or not all(prompts):
        raise OurError("an engine session needs at least one context, and no prompt may be empty")
    longest = max(len(prompt) for prompt in prompts) + request.max_tokens
    if longest > context_length:
        raise PromptTooLongError(num_tokens=longest, max_tokens=context_length)
    beyond = [token for prompt in prompts for token in prompt if not 0 <= token < num_vocabulary]
    if beyond:
        raise OurError(f"token {beyond[0]} is beyond the vocabulary of {num_vocabulary}")
