"""Answers without a protocol, written in one process: tokens do not depend on the link.

Greedy, with the contexts, the published form and the coupling of a real answer.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.session.ending import Ending
from dragon_core.types import Peer, Published
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.engines.llama.branches import MAX_FED_TOKENS, PREFILL_CHUNK
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.publishing import publish_step
from dragon_runtime.interfaces import Embedder, Engine, EngineRequest
from dragon_runtime.settings import ProtocolSettings
from evaluation.asking import FixedPassages, Settings, request_for
from evaluation.factbook import Prompt
from evaluation.methods.method import Method

CONTEXT_LENGTH = 1024
MAX_TOKENS = 40
MAX_PROMPTS = 4
"""Of one question: each side's context, the bare prompt, and the one prompt with all passages."""
Tokens = tuple[int, ...]


class Requests:
    """What each side's engine would be asked to open, as a real end prepares it."""

    def __init__(self, engine: Engine, embedder: Embedder) -> None:
        self._engine, self._embedder = engine, embedder
        self._passages = FixedPassages()
        self._preparations: dict[str, Preparation] = {}

    async def of(self, method: Method, prompt: Prompt) -> list[EngineRequest]:
        """One per side that has a part in the answer."""
        preparation = self._preparation(method)
        settings = Settings(rule=method.weighting.rule, temperature=0.0, max_tokens=MAX_TOKENS)
        message = request_for(preparation, prompt.question, settings)
        requests = []
        for self._passages.found in method.passages(prompt):
            requests.append(await preparation.engine_request(message))
        return requests

    def _preparation(self, method: Method) -> Preparation:
        if method.name not in self._preparations:
            self._preparations[method.name] = Preparation(
                engine=self._engine,
                embedder=self._embedder,
                retriever=self._passages,
                protocol=ProtocolSettings(
                    weighting=method.weighting,
                    num_passages=method.num_passages,
                    passages_per_context=method.num_passages,
                ),
            )
        return self._preparations[method.name]


class Writer:
    """Writes the answers to one question after the other; what was decoded for one method is there for the next."""

    def __init__(self, path: Path, *, num_threads: int) -> None:
        """Load the model.

        Raises:
            ModelError: it cannot be loaded.
        """
        self._model = LlamaModel(path)
        self._sequences = LlamaSequences(
            self._model, num_sequences=MAX_PROMPTS, context_length=CONTEXT_LENGTH, num_threads=num_threads
        )
        self._held: dict[Tokens, Tokens] = {}
        self._logits: dict[tuple[Tokens, Tokens], NDArray[np.float32]] = {}

    def forget(self) -> None:
        """Make room for the prompts of the next question."""
        self._held.clear()
        self._logits.clear()

    def write(self, requests: Sequence[EngineRequest]) -> str:
        """A greedy answer from one side or two, opener first."""
        coupling = SharedNoise(seed=1, temperature=0.0)
        ending = Ending(self._model.vocabulary, max_tokens=MAX_TOKENS, stop=())
        tokens: list[int] = []
        text = b""
        while ending.reason is None:
            published = self._publish(requests, tuple(tokens))
            # A side that is alone takes its own guess.
            settled = coupling.settle(len(tokens), published[0], published[1] if len(published) > 1 else None)
            token = settled.token if settled else coupling.guesses(len(tokens), published[0], 1, Peer.OPENER)[0].token
            tokens.append(token)
            text += ending.push(token)
        return text.decode("utf-8", "replace")

    def _publish(self, requests: Sequence[EngineRequest], answer: Tokens) -> list[Published]:
        self._decode([prompt for request in requests for prompt in request.prompts], answer)
        return [
            publish_step(request, [self._logits[prompt, answer] for prompt in request.prompts]).published
            for request in requests
        ]

    def _decode(self, all_prompts: Iterable[Tokens], answer: Tokens) -> None:
        """Have the logits after every prompt and the answer so far."""
        wanted = dict.fromkeys(all_prompts)
        for prompt in wanted:
            if prompt not in self._held:
                self._prefill(prompt)
        missing = [prompt for prompt in wanted if (prompt, answer) not in self._logits]
        if missing:
            logits = self._sequences.decode([self._next_piece(prompt, answer) for prompt in missing])
            self._logits.update(zip(((prompt, answer) for prompt in missing), logits, strict=True))

    def _prefill(self, prompt: Tokens) -> None:
        sequence = len(self._held)
        self._held[prompt] = ()
        self._sequences.cut(sequence, 0)
        for start in range(0, len(prompt), PREFILL_CHUNK):
            chunk = prompt[start : start + PREFILL_CHUNK]
            is_last = start + len(chunk) == len(prompt)
            logits = self._sequences.decode([Piece(sequence, start, chunk, is_last)])
        (self._logits[prompt, ()],) = logits

    def _next_piece(self, prompt: Tokens, answer: Tokens) -> Piece:
        """What the prompt's sequence lacks of the answer, after going back to where both part."""
        sequence = list(self._held).index(prompt)
        num_shared = _num_shared(self._held[prompt], answer[:-1])
        self._sequences.cut(sequence, len(prompt) + num_shared)
        self._held[prompt] = answer
        while len(answer) - num_shared > MAX_FED_TOKENS:
            chunk = answer[num_shared : num_shared + MAX_FED_TOKENS]
            self._sequences.decode([Piece(sequence, len(prompt) + num_shared, chunk, wants_logits=False)])
            num_shared += len(chunk)
        return Piece(sequence, len(prompt) + num_shared, answer[num_shared:], wants_logits=True)


def _num_shared(first: Tokens, second: Tokens) -> int:
    """Length of the longest common beginning."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(first), len(second)))
