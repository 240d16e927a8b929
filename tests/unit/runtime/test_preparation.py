"""What an engine is asked to open: contexts of retrieved passages that fit, or the bare prompt in their place."""

import msgspec
import pytest

from dragon_core.errors import PromptTooLongError
from dragon_core.messages import PROTOCOL_VERSION, ChatMessage, Open
from dragon_core.types import GREEDY_PUBLISHED_TOKENS, Context, CouplingKind, WeightingRule
from dragon_core.weighting import BARE_RELEVANCE, context_relevance
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import ProtocolSettings, WeightingSettings
from tests.fakes.engine import FlatEmbedder
from tests.fakes.toy_engine_async import ToyEngine, toy_tokens

QUESTION = "Which gate?"
PASSAGES = (
    Passage(document_id="a", text="The gate is 12.", relevance=0.7),
    Passage(document_id="b", text="Gates close early.", relevance=0.5),
    Passage(document_id="c", text="Gate 12 is upstairs.", relevance=0.4),
)
MAX_TOKENS = 20


class Shelf:
    """A retriever that finds what it was given, and remembers what it was asked."""

    def __init__(self, *passages: Passage) -> None:
        self.passages = passages
        self.queries: list[tuple[str, int]] = []

    async def retrieve(self, query: str, *, num_passages: int) -> list[Passage]:
        self.queries.append((query, num_passages))
        return list(self.passages[:num_passages])


def preparation_of(
    shelf: Shelf,
    *,
    rule: WeightingRule = WeightingRule.RELEVANCE,
    num_passages: int = 3,
    passages_per_context: int = 1,
    context_length: int = 256,
) -> Preparation:
    return Preparation(
        engine=ToyEngine(context_length=context_length, num_sequences=16),
        embedder=FlatEmbedder(),
        retriever=shelf,
        protocol=ProtocolSettings(
            num_passages=num_passages,
            passages_per_context=passages_per_context,
            weighting=WeightingSettings(rule=rule),
        ),
    )


def open_of(preparation: Preparation, *messages: ChatMessage, temperature: float = 0.7) -> Open:
    return Open(
        version=PROTOCOL_VERSION,
        fingerprint=preparation.fingerprint,
        messages=messages or (ChatMessage("user", QUESTION),),
        temperature=temperature,
        top_k=5,
        min_p=0.01,
        top_p=0.9,
        seed=1,
        max_tokens=MAX_TOKENS,
        stop=(),
        coupling=CouplingKind.SHARED_NOISE,
        window=8,
        branches=3,
        placement=None,
        num_top_logprobs=None,
        deadline_seconds=60.0,
    )


def tokens_with(*texts: str) -> tuple[int, ...]:
    """The prompt with these passages, as the toy's template and tokeniser write it."""
    asked = f"Information:\n{chr(10).join(texts)}\n\nQuestion: {QUESTION}" if texts else QUESTION
    return tuple(toy_tokens(f"user: {asked}\nassistant:", special=False))


async def contexts_of(preparation: Preparation) -> tuple[Context, ...]:
    return (await preparation.engine_request(open_of(preparation))).contexts


async def test_each_passage_is_a_context_of_its_own() -> None:
    contexts = await contexts_of(preparation_of(Shelf(*PASSAGES)))
    assert [context.tokens for context in contexts] == [tokens_with(passage.text) for passage in PASSAGES]
    assert [context.document_ids for context in contexts] == [("a",), ("b",), ("c",)]
    assert [context.relevance for context in contexts] == pytest.approx([0.7, 0.5, 0.4])


async def test_several_passages_share_a_context_and_weigh_together() -> None:
    first, second = await contexts_of(preparation_of(Shelf(*PASSAGES), passages_per_context=2))
    assert first.tokens == tokens_with(PASSAGES[0].text, PASSAGES[1].text)
    assert first.document_ids == ("a", "b")
    assert first.relevance == pytest.approx(context_relevance([0.7, 0.5], 0.1))
    assert first.relevance > 0.7
    assert (second.tokens, second.document_ids) == (tokens_with(PASSAGES[2].text), ("c",))


async def test_without_a_relevant_passage_the_bare_prompt_is_the_context() -> None:
    irrelevant = Passage(document_id="x", text="Soup.", relevance=BARE_RELEVANCE)
    for shelf in (Shelf(), Shelf(irrelevant)):
        assert await contexts_of(preparation_of(shelf)) == (Context(tokens=tokens_with(), relevance=BARE_RELEVANCE),)
    mixed = await contexts_of(preparation_of(Shelf(PASSAGES[0], irrelevant)))
    assert [context.document_ids for context in mixed] == [("a",)]


async def test_the_least_relevant_passages_are_left_out_until_the_rest_fits() -> None:
    for num_kept in (3, 2, 1, 0):
        kept = [passage.text for passage in PASSAGES[:num_kept]]
        preparation = preparation_of(
            Shelf(*PASSAGES), passages_per_context=3, context_length=len(tokens_with(*kept)) + MAX_TOKENS
        )
        context = (await contexts_of(preparation))[0]
        assert context.tokens == tokens_with(*kept)
        assert context.document_ids == tuple("abc"[:num_kept])


async def test_a_passage_that_does_not_fit_takes_only_its_own_context_with_it() -> None:
    long = Passage(document_id="long", text="gate " * 60, relevance=0.9)
    contexts = await contexts_of(preparation_of(Shelf(long, *PASSAGES[:2])))
    assert [context.document_ids for context in contexts] == [("a",), ("b",)]


async def test_a_conversation_that_does_not_fit_names_both_lengths() -> None:
    shelf = Shelf(*PASSAGES)
    preparation = preparation_of(shelf, context_length=len(tokens_with()) + MAX_TOKENS - 1)
    with pytest.raises(PromptTooLongError) as refusal:
        await preparation.engine_request(open_of(preparation))
    assert (refusal.value.num_tokens, refusal.value.max_tokens) == (
        len(tokens_with()) + MAX_TOKENS,
        len(tokens_with()) + MAX_TOKENS - 1,
    )
    assert shelf.queries == []


@pytest.mark.parametrize("rule", WeightingRule)
async def test_the_bare_prompt_is_asked_for_where_the_rule_compares_with_it(rule: WeightingRule) -> None:
    preparation = preparation_of(Shelf(PASSAGES[0]), rule=rule)
    request = await preparation.engine_request(open_of(preparation))
    assert request.bare_prompt == (tokens_with() if rule.needs_bare_prompt else None)
    assert request.weighting.rule is rule
    assert preparation.fingerprint.weighting_rule is rule


async def test_the_last_user_message_is_the_query() -> None:
    shelf = Shelf(*PASSAGES)
    preparation = preparation_of(shelf, num_passages=2)
    messages = (ChatMessage("user", "Hello."), ChatMessage("assistant", "Yes?"), ChatMessage("user", QUESTION))
    await preparation.engine_request(open_of(preparation, *messages))
    assert shelf.queries == [(QUESTION, 2)]


async def test_an_engine_may_know_the_drafts_that_both_sides_can_draw() -> None:
    preparation = preparation_of(Shelf())
    shared = open_of(preparation)
    independent = msgspec.structs.replace(shared, coupling=CouplingKind.INDEPENDENT)
    assert (await preparation.engine_request(shared)).draft_seed == shared.seed
    assert (await preparation.engine_request(independent)).draft_seed is None


async def test_the_request_carries_what_the_opener_asked_for() -> None:
    preparation = preparation_of(Shelf())
    warm = await preparation.engine_request(open_of(preparation))
    greedy = await preparation.engine_request(open_of(preparation, temperature=0.0))
    assert (warm.sampling.temperature, warm.sampling.top_k, warm.sampling.min_p, warm.sampling.top_p) == (
        0.7,
        5,
        0.01,
        0.9,
    )
    assert (warm.max_branches, warm.max_tokens) == (3, MAX_TOKENS)
    assert warm.cut.max_published_tokens == preparation.fingerprint.max_published_tokens
    assert greedy.cut.max_published_tokens == GREEDY_PUBLISHED_TOKENS


async def test_what_is_prepared_is_an_engine_session_and_where_its_contexts_come_from() -> None:
    preparation = preparation_of(Shelf(*PASSAGES), passages_per_context=2)
    prepared = await preparation.prepare(open_of(preparation), on_step=lambda *_: None, on_failure=lambda _: None)
    assert prepared.document_ids == (("a", "b"), ("c",))
    assert prepared.engine_session.constant_weight_level is not None
    assert prepared.decode_seconds > 0
    await prepared.engine_session.close()
