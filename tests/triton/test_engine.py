"""The language model on a real Triton server: the contract, the embedded engine's tokens, and what goes wrong."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dragon_core.errors import DragonError, EngineError, OurError
from dragon_core.types import WeightingRule
from dragon_runtime.certificates import CertificateFolder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.triton.client import TritonClient
from dragon_runtime.engines.triton.engine import MODEL, TritonEngine, TritonSession
from dragon_runtime.engines.triton.opening import open_tensors
from dragon_runtime.engines.triton.requests import Operation, request_tensor
from dragon_runtime.engines.triton.tensors import Tensors, text
from dragon_runtime.models import bundled_model
from dragon_runtime.settings import TritonSettings
from local_cluster.waiting import wait_until
from tests.contracts.engine import EngineContract
from tests.contracts.engine_sessions import (
    CONTEXT_LENGTH,
    NUM_SEQUENCES,
    DrivenSession,
    assert_same,
    driven,
    fresh_steps,
    request_of,
    tokens_of,
)
from tests.fakes.tiny_model import write_tiny_model
from tests.servers.triton_process import TritonProcess, triton_server

pytestmark = pytest.mark.integration


def parameters(model: Path) -> dict[str, dict[str, object]]:
    return {
        "causal_lm": {
            "model_path": model,
            "context_length": CONTEXT_LENGTH,
            "num_sequences": NUM_SEQUENCES,
            "num_threads": 1,
        }
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonProcess]:
    folder = tmp_path_factory.mktemp("triton")
    with triton_server(folder, parameters(write_tiny_model(folder / "tiny.gguf"))) as running:
        yield running


@pytest.fixture
async def client(server: TritonProcess) -> AsyncIterator[TritonClient]:
    client = TritonClient(server.settings)
    yield client
    await client.close()


@pytest.fixture
async def engine(client: TritonClient) -> AsyncIterator[TritonEngine]:
    engine = await TritonEngine.connect(client)
    yield engine
    await engine.close()


class TestTritonEngine(EngineContract):
    """Random weights."""

    num_interleavings = 25

    @pytest.fixture
    async def engine(self, client: TritonClient) -> AsyncIterator[TritonEngine]:
        engine = await TritonEngine.connect(client)
        yield engine
        await engine.close()


async def free_sequences(server: TritonProcess) -> None:
    """Wait until no session holds a sequence; the contract's engine must find all of them free."""
    await asyncio.to_thread(
        wait_until, lambda: not server.metric("dragon_causal_lm_sequences_in_use"), "all sequences are free"
    )


@pytest.mark.parametrize("rule", WeightingRule)
async def test_steps_are_those_of_the_embedded_engine_bit_by_bit(
    server: TritonProcess, engine: TritonEngine, rule: WeightingRule
) -> None:
    embedded = await LlamaEngine.load(
        server.folder / "tiny.gguf", context_length=CONTEXT_LENGTH, num_sequences=NUM_SEQUENCES, num_threads=1
    )
    assert engine.vocabulary == embedded.vocabulary
    assert (engine.chat_template, engine.bos_text, engine.eos_text) == (
        embedded.chat_template,
        embedded.bos_text,
        embedded.eos_text,
    )
    request, path = request_of(engine, 130, 70, rule=rule), tokens_of(engine, 7, 12)
    for ours, theirs in zip(
        await fresh_steps(engine, request, path), await fresh_steps(embedded, request, path), strict=True
    ):
        assert_same(ours, theirs)
    await embedded.close()


async def test_text_is_split_as_the_embedded_engine_splits_it(server: TritonProcess, engine: TritonEngine) -> None:
    embedded = await LlamaEngine.load(
        server.folder / "tiny.gguf", context_length=CONTEXT_LENGTH, num_sequences=1, num_threads=1
    )
    for said in ("", "Größe, naïve café — 東京 🐉", "<|im_end|> not a command\0", "x" * 5000):
        for special in (False, True):
            found = await asyncio.to_thread(engine.tokenise, said, special=special)
            assert found == embedded.tokenise(said, special=special)
    await embedded.close()


class Raw:
    """Requests as another client would write them."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client

    async def refusal(self, tensors: Tensors) -> str:
        with pytest.raises(DragonError) as refusal:
            await self._client.ask(MODEL, tensors)
        return str(refusal.value)


async def test_wrong_requests_get_a_reason_and_harm_no_session(client: TritonClient, engine: TritonEngine) -> None:
    raw, request, path = Raw(client), request_of(engine, 9), tokens_of(engine, 7, 4)
    opening = {"REQUEST": request_tensor(Operation.OPEN, 77), **open_tensors(request)}
    expected = await fresh_steps(engine, request, path)
    async with driven(engine, request) as innocent:
        first = innocent.feed(path[0])
        wrong: dict[str, dict[str, Any]] = {
            "missing required input": {},
            "operation 9; there are 0 describe": {"REQUEST": np.array([9, 0])},
            "no session 77": {"REQUEST": request_tensor(Operation.RUN, 77)},
            "OPTIONS": {**opening, "OPTIONS": text("{")},
            "LENGTHS sums to": {**opening, "LENGTHS": np.array([8], dtype=np.int32)},
            "relevances": {**opening, "RELEVANCES": np.array([0.5, 0.5])},
            "beyond the vocabulary": {**opening, "TOKENS": np.array([10**6] * 9, dtype=np.int32)},
            "data-type": {**opening, "TOKENS": np.zeros(9, dtype=np.float32)},
            "unexpected inference input": {**opening, "SURPRISE": np.array([77])},
            "no TEXT": {"REQUEST": request_tensor(Operation.TOKENISE)},
        }
        for reason, tensors in wrong.items():
            assert reason in await raw.refusal(tensors), reason
        assert_same(await innocent.answer(first), expected[1])
        assert_same(await innocent.fed(*path[1:]), expected[4])


async def test_a_run_that_makes_no_sense_is_refused_and_its_session_goes_on(
    server: TritonProcess, client: TritonClient, engine: TritonEngine
) -> None:
    async with driven(engine, request_of(engine, 9)) as session:
        assert isinstance(session.session, TritonSession)
        number = session.session.number
        for commands, reason in (
            ([0, 1, 7, 1, 3], "there is no branch 7"),
            ([0, 1, 0, 1, 10**6], "beyond the vocabulary"),
            ([9, 0, 0, 0], "is no command"),
            ([0, 1, 0, 5, 3], "ends within"),
        ):
            asked = {"REQUEST": request_tensor(Operation.RUN, number, commands)}
            assert reason in await Raw(client).refusal(asked)
        await session.fed(*tokens_of(engine, 7, 2))
        duplicate = {"REQUEST": request_tensor(Operation.OPEN, number), **open_tensors(request_of(engine, 9))}
        assert "already" in await Raw(client).refusal(duplicate)


async def test_a_client_that_is_killed_leaves_its_sequences_to_others(
    server: TritonProcess, engine: TritonEngine
) -> None:
    victim = await asyncio.to_thread(server.client_with_open_sessions, NUM_SEQUENCES, num_tokens=90)
    assert server.metric("dragon_causal_lm_sequences_in_use") == NUM_SEQUENCES
    victim.kill()
    victim.wait()
    await free_sequences(server)
    async with driven(engine, request_of(engine, 9, max_branches=NUM_SEQUENCES)) as session:
        await session.fed()


async def test_metrics_count_what_was_done(server: TritonProcess, engine: TritonEngine) -> None:
    names = (
        "tokens_total",
        "prompt_tokens_total",
        "rejected_total",
        "batch_size_count",
        "queue_seconds_count",
        "decode_seconds_count",
    )
    before = {name: server.metric(f"dragon_causal_lm_{name}") for name in names}
    async with driven(engine, request_of(engine, 9, 5)) as session:
        for token in tokens_of(engine, 7, 3):
            await session.fed(token)
        assert server.metric("dragon_causal_lm_sequences_in_use") == 2
        with pytest.raises(DragonError):
            await DrivenSession.open(engine, request_of(engine, 9, max_branches=NUM_SEQUENCES))
    await free_sequences(server)
    grown = {name: server.metric(f"dragon_causal_lm_{name}") - before[name] for name in names}
    assert grown == {
        "tokens_total": 6,
        "prompt_tokens_total": 14,
        "rejected_total": 1,
        "batch_size_count": 3,
        "queue_seconds_count": 1,
        "decode_seconds_count": 3,
    }


async def serves_again(engine: TritonEngine, *, seconds: float) -> None:
    """Open a session as soon as there is a model again, and step it."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                again = await DrivenSession.open(engine, request_of(engine, 9))
                break
            except EngineError:
                await asyncio.sleep(0.2)
    await again.fed(*tokens_of(engine, 7, 3))
    await again.close()


async def test_when_the_process_of_the_model_dies_its_sessions_fail_and_the_next_open_loads_it_again(
    server: TritonProcess, engine: TritonEngine
) -> None:
    session = await DrivenSession.open(engine, request_of(engine, 9))
    (process,) = server.model_processes("causal_lm")
    os.kill(process, signal.SIGKILL)
    assert isinstance(await asyncio.wait_for(session.failure(), 30), EngineError)
    await session.close()
    await serves_again(engine, seconds=60)
    assert server.is_running


async def test_when_the_server_dies_sessions_fail_and_the_engine_finds_the_next_one(
    server: TritonProcess, engine: TritonEngine
) -> None:
    session = await DrivenSession.open(engine, request_of(engine, 9))
    session.feed(*tokens_of(engine, 7, 90))
    server.kill()
    assert isinstance(await asyncio.wait_for(session.failure(), 30), EngineError)
    await session.close()
    with pytest.raises(EngineError):
        await DrivenSession.open(engine, request_of(engine, 9))
    await asyncio.to_thread(server.start)
    await serves_again(engine, seconds=30)


async def test_only_a_certificate_of_the_authority_is_let_in(tmp_path: Path) -> None:
    authority = CertificateFolder(tmp_path / "tls", name="ours")
    stranger = CertificateFolder(tmp_path / "other", name="theirs").issue("stranger")
    ours, identity = authority.issue("client"), authority.issue("triton", is_server=True)
    server = TritonProcess(
        tmp_path, parameters(write_tiny_model(tmp_path / "tiny.gguf")), tls=(authority, identity, ours)
    )
    await asyncio.to_thread(server.start)
    try:
        client = TritonClient(server.settings)
        engine = await TritonEngine.connect(client)
        async with driven(engine, request_of(engine, 9)) as session:
            await session.fed()
        await client.close()
        for settings in (
            server.settings.model_copy(
                update={"certificate_file": stranger.certificate_file, "key_file": stranger.key_file}
            ),
            TritonSettings(address=server.settings.address, ca_file=authority.certificate_file),
            TritonSettings(address=server.settings.address),
        ):
            refused = TritonClient(settings)
            with pytest.raises(EngineError):
                await asyncio.wait_for(TritonEngine.connect(refused), 20)
            await refused.close()
    finally:
        server.stop()


async def test_a_model_that_cannot_be_loaded_is_not_ready_and_the_reason_is_logged(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"GGUF" + bytes(100))
    server = TritonProcess(tmp_path, parameters(damaged))
    await asyncio.to_thread(server.start, "embedder")
    try:
        assert not server.are_ready("causal_lm")
        assert "get it again" in server.log
        client = TritonClient(server.settings)
        with pytest.raises(EngineError):
            await TritonEngine.connect(client)
        # The right file in the same place, loaded again: it serves.
        write_tiny_model(damaged)
        await client.reload(MODEL)
        await TritonEngine.connect(client)
        await client.close()
    finally:
        server.stop()


async def test_the_bundled_model_says_the_same_on_triton(tmp_path: Path) -> None:
    embedded = await LlamaEngine.load(
        bundled_model(), context_length=CONTEXT_LENGTH, num_sequences=NUM_SEQUENCES, num_threads=1
    )
    request, path = request_of(embedded, 100, 60, rule=WeightingRule.EVIDENCE), tokens_of(embedded, 7, 8)
    expected = await fresh_steps(embedded, request, path)
    await embedded.close()
    given = parameters(bundled_model())
    given["causal_lm"]["model_path"] = ""
    server = TritonProcess(tmp_path, given)
    await asyncio.to_thread(server.start)
    try:
        client = TritonClient(server.settings)
        engine = await TritonEngine.connect(client)
        for ours, theirs in zip(await fresh_steps(engine, request, path), expected, strict=True):
            assert_same(ours, theirs)
        await client.close()
    finally:
        server.stop()


async def test_a_session_refuses_what_comes_after_it(client: TritonClient, engine: TritonEngine) -> None:
    session = await DrivenSession.open(engine, request_of(engine, 9))
    await session.close()
    with pytest.raises(OurError, match="closed"):
        session.feed(3)
