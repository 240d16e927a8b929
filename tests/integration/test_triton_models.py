"""The shells in `triton_models/` as plain Python: Triton's module is a fake, everything behind it is real."""

import importlib.util
import json
import queue
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dragon_core.types import BranchId, Feed
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.triton.opening import open_tensors
from dragon_runtime.engines.triton.requests import Operation, command_numbers, request_tensor
from dragon_runtime.engines.triton.steps import step_of
from dragon_runtime.engines.triton.tensors import Tensors, text, texts
from tests.contracts.engine_sessions import assert_same, fresh_steps, request_of
from tests.fakes.tiny_model import write_tiny_model

pytestmark = pytest.mark.integration

MODELS = Path(__file__).parents[2] / "triton_models"
FINAL = 1
WAIT_SECONDS = 30


class FakeMetricFamily:
    """Counts what is told of every metric."""

    COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

    def __init__(self, *, name: str, description: str, kind: str) -> None:
        self.name = name

    def Metric(self, *, labels: dict[str, str], **options: Any) -> Any:  # noqa: N802 - Triton's name
        return SimpleNamespace(increment=lambda _: None, set=lambda _: None, observe=lambda _: None)


@dataclass
class FakeRequest:
    """A request and where its responses go: (tensors or an error's text, whether it is the last)."""

    tensors: Tensors
    outputs: tuple[str, ...] = ()
    answers: "queue.Queue[tuple[Any, bool]]" = field(default_factory=queue.Queue)
    is_cancelled: bool = False

    def inputs(self) -> list[Any]:
        return [fake_tensor(name, array) for name, array in self.tensors.items()]

    def requested_output_names(self) -> list[str]:
        return list(self.outputs)

    def get_response_sender(self) -> Any:
        return SimpleNamespace(
            send=lambda response=None, flags=0: self.answers.put((response, flags == FINAL)),
            is_cancelled=lambda: self.is_cancelled,
        )

    def answer(self) -> tuple[Any, bool]:
        return self.answers.get(timeout=WAIT_SECONDS)


def fake_tensor(name: str, array: Any) -> Any:
    return SimpleNamespace(name=lambda: name, as_numpy=lambda: array)


@pytest.fixture
def pb_utils(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    fake = ModuleType("triton_python_backend_utils")

    def response(tensors: list[Any] | None = None, error: str | None = None) -> Any:
        return error if error is not None else {tensor.name(): tensor.as_numpy() for tensor in tensors or []}

    for name, value in {
        "MetricFamily": FakeMetricFamily,
        "Tensor": fake_tensor,
        "TritonError": str,
        "TritonModelException": RuntimeError,
        "InferenceResponse": response,
        "TRITONSERVER_RESPONSE_COMPLETE_FINAL": FINAL,
        "get_input_tensor_by_name": lambda request, name: fake_tensor(name, request.tensors[name]),
    }.items():
        setattr(fake, name, value)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    return fake


def load(model: str, **parameters: object) -> Any:
    """The model as Triton makes it."""
    spec = importlib.util.spec_from_file_location(f"{model}_shell", MODELS / model / "1" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.TritonPythonModel()
    config = {"parameters": {name: {"string_value": str(value)} for name, value in parameters.items()}}
    made.initialize({"model_config": json.dumps(config)})
    return made


@pytest.fixture
def causal_lm(pb_utils: ModuleType, tmp_path: Path) -> Iterator[Any]:
    model = load(
        "causal_lm",
        model_path=write_tiny_model(tmp_path / "tiny.gguf"),
        context_length=256,
        num_sequences=2,
        num_threads=1,
        idle_seconds=1.0,
    )
    yield model
    model.finalize()


async def test_a_session_answers_as_the_engine_does(causal_lm: Any, tmp_path: Path) -> None:
    engine = await LlamaEngine.load(tmp_path / "tiny.gguf", context_length=256, num_sequences=2, num_threads=1)
    request = request_of(engine, 9, 5)
    expected = await fresh_steps(engine, request, (3, 4))
    opening = FakeRequest({"REQUEST": request_tensor(Operation.OPEN, 7), **open_tensors(request)})
    causal_lm.execute([opening])
    opened, is_last = opening.answer()
    assert not is_last
    assert set(opened) == {"SECONDS", "CONSTANT_WEIGHT_LEVEL"}
    feeds = [Feed(at, BranchId(0), (3,) if at == 1 else (4,)) for at in (1, 2)]
    running = FakeRequest({"REQUEST": request_tensor(Operation.RUN, 7, command_numbers(feeds))})
    causal_lm.execute([running])
    assert running.answer() == (None, True)
    for ticket, step in enumerate(expected[1:], start=1):
        answer, _ = opening.answer()
        found, answered = step_of(answer, num_contexts=2, num_vocabulary=len(engine.vocabulary))
        assert found == ticket
        assert_same(answered, step)
    closing = FakeRequest({"REQUEST": request_tensor(Operation.CLOSE, 7)})
    causal_lm.execute([closing])
    assert closing.answer() == (None, True)
    closed, is_last = opening.answer()
    assert is_last
    assert "CLOSED" in closed
    await engine.close()


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_session_that_nobody_uses_is_ended(causal_lm: Any, tmp_path: Path, is_cancelled: bool) -> None:
    engine = await LlamaEngine.load(tmp_path / "tiny.gguf", context_length=256, num_sequences=2, num_threads=1)
    tensors = open_tensors(request_of(engine, 9, 5))
    await engine.close()
    for number in (1, 2):  # the second finds the sequences of the first free
        opening = FakeRequest({"REQUEST": request_tensor(Operation.OPEN, number), **tensors})
        causal_lm.execute([opening])
        opened, _ = opening.answer()
        assert "SECONDS" in opened
        opening.is_cancelled = is_cancelled
        said, is_last = opening.answer()
        assert is_last
        assert ("gone" if is_cancelled else "no request") in json.loads(said)["message"]


def test_a_model_that_cannot_be_loaded_or_has_bad_parameters_says_why(pb_utils: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot read the model .*none\.gguf"):
        load("causal_lm", model_path=tmp_path / "none.gguf")
    with pytest.raises(RuntimeError, match="num_sequences"):
        load("causal_lm", num_sequences=257)
    with pytest.raises(RuntimeError, match="surprise"):
        load("embedder", surprise=1)


async def test_texts_of_several_requests_are_embedded_together(pb_utils: ModuleType) -> None:
    embedder = load("embedder")
    embedded = await open_embedder("bundled://all-minilm-l6-v2")
    batches = [["a cat", "a dog"], ["three"], ["four", "five", "six"]]
    requests = [FakeRequest({"TEXT": texts(batch).reshape(-1, 1)}, ("NUM_TOKENS", "VECTOR")) for batch in batches]
    for batch, found in zip(batches, embedder.execute(requests), strict=True):
        np.testing.assert_allclose(found["VECTOR"], await embedded.embed(batch), atol=1e-5)
        assert found["NUM_TOKENS"].tolist() == [[embedded.num_tokens(each)] for each in batch]
    (named,) = embedder.execute([FakeRequest({"TEXT": text("x").reshape(-1, 1)}, ("NAME", "REVISION"))])
    assert named["NAME"][0][0].decode() == embedded.name
    assert named["REVISION"][0][0].decode() == embedded.revision
    embedder.finalize()
