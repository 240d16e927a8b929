"""What goes over Triton's wire: everything comes back as it was, and what does not fit is refused with a reason."""

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dragon_core.errors import (
    CapacityError,
    DragonError,
    EngineError,
    EngineLostError,
    ModelError,
    OurError,
    PromptTooLongError,
    RetryableError,
)
from dragon_core.mixture import publish
from dragon_core.types import (
    BranchId,
    Command,
    Context,
    Cut,
    Drop,
    Feed,
    Fork,
    Rollback,
    Sampling,
    Vocabulary,
    Weighting,
    WeightingRule,
)
from dragon_runtime.engines.triton.description import Description, description_of, description_tensors
from dragon_runtime.engines.triton.failures import failure_of, failure_text
from dragon_runtime.engines.triton.opening import open_tensors, request_of
from dragon_runtime.engines.triton.requests import Operation, command_numbers, commands_of, operation_of, request_tensor
from dragon_runtime.engines.triton.steps import step_of, step_tensors
from dragon_runtime.engines.triton.tensors import Tensors, text
from dragon_runtime.interfaces import EngineRequest

branches = st.integers(0, 255).map(BranchId)
tokens = st.lists(st.integers(0, 2**31 - 1), max_size=40).map(tuple)
commands = st.one_of(
    st.builds(Feed, st.integers(0, 2**40), branches, tokens),
    st.builds(Fork, branches, branches),
    st.builds(Rollback, branches, st.integers(0, 10**6)),
    st.builds(Drop, branches),
)


@given(st.lists(commands, max_size=20))
def test_commands_come_back_as_they_were(given_commands: list[Command]) -> None:
    tensors = {"REQUEST": request_tensor(Operation.RUN, 7, command_numbers(given_commands))}
    assert operation_of(tensors) == (Operation.RUN, 7)
    assert commands_of(tensors) == given_commands


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=60))
def test_numbers_are_commands_or_are_refused(numbers: list[int]) -> None:
    tensors: Tensors = {"REQUEST": request_tensor(Operation.RUN, 7, numbers)}
    with contextlib.suppress(OurError):
        assert len(commands_of(tensors)) <= len(numbers) // 4


def request(rule: WeightingRule, *, draft_seed: int | None = None) -> EngineRequest:
    return EngineRequest(
        contexts=(Context(tokens=(1, 2, 3), relevance=0.75), Context(tokens=(4,), relevance=0.1)),
        bare_prompt=(9, 8) if rule.needs_bare_prompt else None,
        weighting=Weighting(rule=rule, temperature=0.3, beta=0.7, gamma=0.25),
        sampling=Sampling(temperature=0.9, top_k=12, min_p=0.01, top_p=0.95),
        cut=Cut(nucleus=0.9, max_published_tokens=17),
        max_branches=3,
        max_tokens=99,
        draft_seed=draft_seed,
    )


@pytest.mark.parametrize("rule", WeightingRule)
@pytest.mark.parametrize("draft_seed", [None, 0, 2**64 - 1])
def test_a_request_comes_back_as_it_was(rule: WeightingRule, draft_seed: int | None) -> None:
    given_request = request(rule, draft_seed=draft_seed)
    assert request_of(open_tensors(given_request)) == given_request


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"TOKENS": None}, "no TOKENS"),
        ({"LENGTHS": np.array([3, 2], dtype=np.int32)}, "LENGTHS sums to 5"),
        ({"LENGTHS": np.array([5, -1], dtype=np.int32)}, "LENGTHS"),
        ({"LENGTHS": np.array([4], dtype=np.int32)}, "1 prompts for 2 relevances"),
        ({"RELEVANCES": np.array([0.5, np.nan])}, "finite"),
        ({"OPTIONS": text("not JSON")}, "OPTIONS"),
        ({"OPTIONS": text('{"rule": "relevance"}')}, "OPTIONS"),
        ({"OPTIONS": np.array([b"\xff"], dtype=object)}, "UTF-8"),
        ({"OPTIONS": np.array([b"{}", b"{}"], dtype=object)}, "2 elements"),
        ({"TOKENS": np.zeros(2_000_000, dtype=np.int32)}, "at most"),
    ],
)
def test_a_request_that_does_not_fit_is_refused(changed: dict[str, object], reason: str) -> None:
    tensors = {**open_tensors(request(WeightingRule.RELEVANCE)), **changed}
    with pytest.raises(OurError, match=reason):
        request_of({name: tensor for name, tensor in tensors.items() if tensor is not None})  # type: ignore[misc]


def test_options_out_of_range_are_refused() -> None:
    tensors = dict(open_tensors(request(WeightingRule.RELEVANCE)))
    options = json.loads(tensors["OPTIONS"][0])
    for name, value in (("nucleus", 0), ("top_p", 1.1), ("max_branches", 0), ("temperature", -1), ("surprise", 1)):
        with pytest.raises(OurError, match=name):
            request_of({**tensors, "OPTIONS": text(json.dumps({**options, name: value}))})


@pytest.mark.parametrize("num_published", [1, 64, 700])
def test_a_step_comes_back_bit_by_bit(num_published: int) -> None:
    logits = np.random.default_rng(1).normal(size=(2, 700)).astype(np.float32)
    step = publish(
        logits,
        None,
        np.array([0.4, 0.3]),
        weighting=Weighting(rule=WeightingRule.RELEVANCE),
        sampling=Sampling(temperature=0.7),
        cut=Cut(nucleus=1.0, max_published_tokens=num_published),
    )
    ticket, found = step_of(step_tensors(12, step), num_contexts=2, num_vocabulary=700)
    assert ticket == 12
    assert found.published == step.published
    assert np.array_equal(found.context_shares, step.context_shares)
    np.testing.assert_array_equal(found.published.distribution.probabilities, step.published.distribution.probabilities)
    whole = step_tensors(12, step)["STEP"]
    for wrong in (whole[:5], whole[:-1], whole[:24], np.append(whole, np.uint8(0)), np.full_like(whole, 0xFF)):
        with pytest.raises(EngineError, match="does not fit"):
            step_of({"STEP": wrong}, num_contexts=2, num_vocabulary=700)


def test_a_description_comes_back_as_it_was() -> None:
    vocabulary = Vocabulary(
        token_bytes=(b"", b"a", b"\xff\x00", "é".encode()), special_ids=frozenset({0}), end_ids=frozenset({0, 3})
    )
    description = Description(
        context_length=128, num_sequences=2, decode_seconds=0.1, chat_template="{{ x }}", bos_text="", eos_text="</s>"
    )
    assert description_of(description_tensors(description, vocabulary)) == (description, vocabulary)
    with pytest.raises(EngineError, match="describes itself"):
        description_of({"MODEL": text("{}")})


@pytest.mark.parametrize(
    "error",
    [
        OurError("there is no branch 7"),
        EngineError("the model computed nan"),
        ModelError("no such file"),
        RetryableError("later", retry_after_seconds=2.5),
        CapacityError("4 of 2", requested=4, available=2, retry_after_seconds=3.0),
        PromptTooLongError(num_tokens=300, max_tokens=256),
    ],
)
def test_an_error_comes_back_as_it_was(error: DragonError) -> None:
    found = failure_of(failure_text(error))
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert vars(found) == vars(error)


def test_an_error_of_triton_itself_is_an_engine_that_may_be_back() -> None:
    found = failure_of("[StatusCode.UNAVAILABLE] failed to connect")
    assert type(found) is EngineLostError
    assert "failed to connect" in str(found)
