"""SmolLM2's logits, bit by bit: what a sequence says does not depend on who else is decoded, or how it is fed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from dragon_runtime.engines.llama.branches import MAX_FED_TOKENS
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.models import bundled_model

pytestmark = pytest.mark.integration

Logits = NDArray[np.float32]
NUM_PATHS = 4
PATHS = np.random.default_rng(1).integers(17, 49_152, size=(NUM_PATHS, MAX_FED_TOKENS)).tolist()
PROMPTS = np.random.default_rng(2).integers(17, 49_152, size=(NUM_PATHS, 24)).tolist()
START = len(PROMPTS[0])
LENGTHS = (MAX_FED_TOKENS, 1, 7, MAX_FED_TOKENS)
"""Tokens fed at once to the sequences of one batch."""


@pytest.fixture(scope="module")
def sequences() -> Iterator[LlamaSequences]:
    model = LlamaModel(bundled_model())
    sequences = LlamaSequences(model, num_sequences=NUM_PATHS + 1, context_length=256, num_threads=1)
    yield sequences
    sequences.close()
    model.close()


@pytest.fixture(scope="module")
def alone(sequences: LlamaSequences) -> list[list[Logits]]:
    """Per path the logits after each of its tokens, decoded one by one with nobody else."""
    for path, prompt in enumerate(PROMPTS):
        sequences.decode([Piece(path, 0, tuple(prompt), wants_logits=False)])
    return [
        [sequences.decode([Piece(path, START + at, (token,), True)])[0] for at, token in enumerate(tokens)]
        for path, tokens in enumerate(PATHS)
    ]


@pytest.fixture
def prompted(sequences: LlamaSequences, alone: list[list[Logits]]) -> LlamaSequences:
    """Every sequence holds its prompt, the last one nothing."""
    for path in range(NUM_PATHS):
        sequences.cut(path, START)
    sequences.cut(NUM_PATHS, 0)
    return sequences


def assert_equal(found: Sequence[Logits], expected: Sequence[Logits]) -> None:
    assert all(np.array_equal(row, other) for row, other in zip(found, expected, strict=True))


def test_paths_differ(alone: list[list[Logits]]) -> None:
    assert not np.array_equal(alone[0][0], alone[1][0])
    assert not np.array_equal(alone[0][0], alone[0][1])


def test_four_sequences_in_a_batch_are_each_as_alone(prompted: LlamaSequences, alone: list[list[Logits]]) -> None:
    for at in range(8):
        found = prompted.decode([Piece(path, START + at, (PATHS[path][at],), True) for path in range(NUM_PATHS)])
        assert_equal(found, [alone[path][at] for path in range(NUM_PATHS)])


def test_many_tokens_at_once_are_as_one_by_one(prompted: LlamaSequences, alone: list[list[Logits]]) -> None:
    found = prompted.decode(
        [Piece(path, START, tuple(PATHS[path][:length]), True) for path, length in enumerate(LENGTHS)]
    )
    assert_equal(found, [alone[path][length - 1] for path, length in enumerate(LENGTHS)])


def test_a_step_beside_the_prompt_of_another_is_as_alone(prompted: LlamaSequences, alone: list[list[Logits]]) -> None:
    prompt = tuple(range(1000, 1128))
    for at in range(3):
        beside = Piece(NUM_PATHS, at * len(prompt) // 4, prompt[: len(prompt) // 4], wants_logits=False)
        found = prompted.decode([beside, *(Piece(path, START + at, (PATHS[path][at],), True) for path in range(2))])
        assert_equal(found, [alone[path][at] for path in range(2)])


def test_a_copy_goes_on_as_the_original(prompted: LlamaSequences, alone: list[list[Logits]]) -> None:
    prompted.copy(0, NUM_PATHS)
    found = [prompted.decode([Piece(NUM_PATHS, START + at, (PATHS[0][at],), True)])[0] for at in range(3)]
    assert_equal(found, alone[0][:3])


def test_after_a_cut_nothing_was_ever_there(prompted: LlamaSequences, alone: list[list[Logits]]) -> None:
    prompted.decode([Piece(0, START, tuple(PATHS[1][:20]), True)])
    prompted.cut(0, START)
    found = [prompted.decode([Piece(0, START + at, (PATHS[0][at],), True)])[0] for at in range(3)]
    assert_equal(found, alone[0][:3])
