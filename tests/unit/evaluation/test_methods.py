"""What each method gives its engines, and one engine that answers alone."""

import pytest

from dragon_runtime.interfaces import Passage
from dragon_runtime.settings import PeerSettings
from evaluation.alone import BothRetrievers, alone
from evaluation.asking import FixedPassages
from evaluation.choosing import BASELINES
from evaluation.factbook import Prompt
from evaluation.methods.method import Method
from evaluation.methods.two_sides import CANDIDATES
from tests.fakes.engine import FixedRetriever, FlatEmbedder, WritingEngine

NEAR, FAR, PUBLIC = (
    Passage(document_id=name, text=name, relevance=at) for name, at in (("n", 0.9), ("f", 0.3), ("p", 0.6))
)
PROMPT = Prompt(question="What?", holder="both", edge=(NEAR, FAR), cloud=(PUBLIC,))


@pytest.mark.parametrize("method", CANDIDATES, ids=lambda method: method.name)
def test_a_rule_has_an_engine_with_passages_of_its_own_on_either_side(method: Method) -> None:
    assert [list(given) for given in method.passages(PROMPT)] == [[NEAR, FAR], [PUBLIC]]
    assert (method.num_passages, method.parameters is None) == (2, False)


def test_the_other_methods_have_one_engine_each() -> None:
    given = {
        method.name: ([list(each) for each in method.passages(PROMPT)], method.num_passages) for method in BASELINES
    }
    assert given == {
        "edge only": ([[NEAR, FAR]], 2),
        "cloud only": ([[PUBLIC]], 2),
        "one prompt": ([[NEAR, PUBLIC, FAR]], 4),
    }
    assert all(method.parameters is None for method in BASELINES)


async def test_one_engine_answers_alone_and_says_what_it_took() -> None:
    engine = WritingEngine()
    found = await alone(
        "Count.",
        engine=engine,
        embedder=FlatEmbedder(),
        retriever=FixedRetriever(),
        protocol=PeerSettings(branches=2),
        seed=1,
        max_tokens=4,
    )
    assert (found.text, found.num_tokens) == ("One two three four", 4)
    assert found.first_token_seconds is not None
    assert found.seconds_per_token is not None
    assert engine.num_free == engine.num_sequences


async def test_both_retrievers_give_half_each_the_most_relevant_first() -> None:
    first, second = FixedPassages(), FixedPassages()
    first.found, second.found = PROMPT.edge, PROMPT.cloud
    assert await BothRetrievers(first, second).retrieve("What?", num_passages=4) == [NEAR, PUBLIC, FAR]
    assert await BothRetrievers(first, second).retrieve("What?", num_passages=2) == [NEAR, PUBLIC]
