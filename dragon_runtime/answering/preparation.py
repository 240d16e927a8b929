"""What a session needs before its first token: passages, contexts, prompts, an engine session. Alike at both ends."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from dragon_core.errors import PromptTooLongError
from dragon_core.messages import ChatMessage, Fingerprint, Open, vocabulary_fingerprint, weighting_fields
from dragon_core.session.settings import Limits, SessionSettings
from dragon_core.types import Context, CouplingKind, Sampling
from dragon_core.weighting import BARE_RELEVANCE, context_relevance
from dragon_runtime.answering.prompts import PromptTemplate, last_user_message
from dragon_runtime.interfaces import (
    Embedder,
    Engine,
    EngineRequest,
    EngineSession,
    FailureListener,
    Passage,
    Retriever,
    StepListener,
)
from dragon_runtime.settings.groups import ProtocolSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An engine session with its prompt in place; `document_ids` per context name where its passages come from."""

    engine_session: EngineSession
    decode_seconds: float
    document_ids: tuple[tuple[str, ...], ...]


class Preparation:
    """Retrieves, prompts and prefills for the sessions of one end."""

    def __init__(self, *, engine: Engine, embedder: Embedder, retriever: Retriever, protocol: ProtocolSettings) -> None:
        self._engine = engine
        self._embedder = embedder
        self._retriever = retriever
        self._protocol = protocol
        self._template = PromptTemplate(engine.chat_template, bos_text=engine.bos_text, eos_text=engine.eos_text)
        self._weighting = protocol.weighting.to_weighting()
        self.fingerprint = Fingerprint(
            vocabulary=vocabulary_fingerprint(engine.vocabulary),
            template=self._template.digest,
            embedding=embedder.name,
            embedding_dimension=embedder.dimension,
            embedding_revision=embedder.revision,
            **weighting_fields(self._weighting),
            max_published_tokens=protocol.max_published_tokens,
            nucleus=protocol.nucleus,
        )

    def with_protocol(self, protocol: ProtocolSettings) -> "Preparation":
        """The same end with other settings."""
        return Preparation(engine=self._engine, embedder=self._embedder, retriever=self._retriever, protocol=protocol)

    def session_settings(self, *, limits: Limits, replica: str = "") -> SessionSettings:
        """The settings of every session of this end."""
        return SessionSettings(
            fingerprint=self.fingerprint,
            vocabulary=self._engine.vocabulary,
            cut=self._protocol.cut,
            limits=limits,
            replica=replica,
        )

    def bare_prompt(self, messages: Sequence[ChatMessage], *, max_tokens: int) -> list[int]:
        """The conversation without any passage. Blocks while it is tokenised.

        Raises:
            PromptTooLongError: it does not fit with an answer of `max_tokens`.
        """
        tokens = self._tokens(messages, ())
        room = self._engine.context_length - max_tokens
        if len(tokens) > room:
            raise PromptTooLongError(num_tokens=len(tokens) + max_tokens, max_tokens=self._engine.context_length)
        return tokens

    async def prepare(self, request: Open, *, on_step: StepListener, on_failure: FailureListener) -> Prepared:
        """Retrieve for the last user message and open an engine session over the contexts.

        Raises:
            PromptTooLongError: the conversation alone does not fit. CapacityError: no sequences are free.
            DragonError: the store or the engine failed.
        """
        engine_request = await self.engine_request(request)
        session = await self._engine.open(engine_request, on_step=on_step, on_failure=on_failure)
        return Prepared(
            engine_session=session,
            decode_seconds=self._engine.decode_seconds,
            document_ids=tuple(context.document_ids for context in engine_request.contexts),
        )

    async def engine_request(self, request: Open) -> EngineRequest:
        """What the engine is asked to open: retrieved passages in contexts, and how to mix, sample and cut.

        Raises:
            PromptTooLongError: the conversation alone does not fit. DragonError: the store failed.
        """
        # Beside the event loop: to tokenise a long conversation can take a second, and may ask a server.
        bare = await asyncio.to_thread(self.bare_prompt, request.messages, max_tokens=request.max_tokens)
        query = request.messages[last_user_message(request.messages)].content
        passages = await self._retriever.retrieve(query, num_passages=self._protocol.num_passages)
        return EngineRequest(
            contexts=await asyncio.to_thread(self._contexts, request, passages, bare),
            bare_prompt=tuple(bare) if self._weighting.rule.needs_bare_prompt else None,
            weighting=self._weighting,
            sampling=Sampling(
                temperature=request.temperature, top_k=request.top_k, min_p=request.min_p, top_p=request.top_p
            ),
            cut=self._protocol.cut.at_temperature(request.temperature),
            max_branches=request.branches,
            max_tokens=request.max_tokens,
            draft_seed=request.seed if request.coupling is CouplingKind.SHARED_NOISE else None,
        )

    def _contexts(self, request: Open, passages: Sequence[Passage], bare: list[int]) -> tuple[Context, ...]:
        """Contexts of passages that are more relevant than none at all, or the bare prompt as a pseudo-context."""
        relevant = [passage for passage in passages if passage.relevance > BARE_RELEVANCE]
        size = self._protocol.passages_per_context
        groups = [relevant[start : start + size] for start in range(0, len(relevant), size)]
        contexts = [context for group in groups if (context := self._context(request, group)) is not None]
        return tuple(contexts) or (Context(tokens=tuple(bare), relevance=BARE_RELEVANCE),)

    def _context(self, request: Open, group: Sequence[Passage]) -> Context | None:
        """One context; the least relevant passages are left out until the rest fits."""
        room = self._engine.context_length - request.max_tokens
        for num_kept in range(len(group), 0, -1):
            kept = group[:num_kept]
            tokens = self._tokens(request.messages, [passage.text for passage in kept])
            if len(tokens) <= room:
                return Context(
                    tokens=tuple(tokens),
                    relevance=context_relevance(
                        [passage.relevance for passage in kept], self._protocol.weighting.temperature
                    ),
                    document_ids=tuple(passage.document_id for passage in kept),
                )
            logger.warning("a passage is left out: with it the prompt has %d of %d tokens", len(tokens), room)
        return None

    def _tokens(self, messages: Sequence[ChatMessage], passages: Sequence[str]) -> list[int]:
        return self._template.prompt(
            messages, passages, tokenise=lambda text, special: self._engine.tokenise(text, special=special)
        )
