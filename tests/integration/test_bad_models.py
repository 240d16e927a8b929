"""Models that are missing, damaged, of another kind, or unlike the other end's: each an error that says what to do."""

import hashlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import gguf
import pytest

from dragon_core.errors import ModelError, OurError
from dragon_core.messages import ChatMessage, FinishReason, vocabulary_fingerprint
from dragon_core.types import Peer
from dragon_runtime.embedding.choice import open_embedder
from dragon_runtime.embedding.llama import LlamaEmbedder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.interfaces import Passage
from dragon_runtime.models import bundled_model
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.settings import ModelSettings
from tests.contracts.engine_pair import Asked, EnginePair, Way
from tests.fakes.tiny_model import bundled_tokeniser, write_tiny_model

pytestmark = pytest.mark.integration

ASKED = Asked(
    messages=(ChatMessage("user", "Which gate?"),),
    found=(
        (Passage(document_id="a", text="The gate is 12.", relevance=0.6),),
        (Passage(document_id="b", text="Gates close early.", relevance=0.5),),
    ),
    max_tokens=12,
)


async def load(path: Path) -> LlamaEngine:
    return await LlamaEngine.load(path, context_length=256, num_sequences=8, num_threads=1)


def missing(path: Path) -> None:
    del path


def a_folder(path: Path) -> None:
    path.mkdir()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def something_else(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 a zip file")


def half_of_the_bundled_model(path: Path) -> None:
    with bundled_model().open("rb") as whole:
        path.write_bytes(whole.read(bundled_model().stat().st_size // 2))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "cannot read .*model.path or model.url"),
        (a_folder, "cannot read .*model.path or model.url"),
        (empty, "no GGUF file.*set model.path"),
        (something_else, "no GGUF file.*set model.path"),
        (half_of_the_bundled_model, "truncated or damaged; get it again"),
    ],
)
async def test_a_file_that_is_no_whole_model_is_refused(
    tmp_path: Path, make: Callable[[Path], None], reason: str
) -> None:
    path = tmp_path / "model.gguf"
    make(path)
    with pytest.raises(ModelError, match=reason) as refusal:
        await load(path)
    assert str(path) in str(refusal.value)
    with pytest.raises(ModelError):
        await LlamaEmbedder.load(path)


async def test_a_model_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    """Header, names of tokens, table of tensors, weights: the library must never be trusted to notice by itself."""
    whole = write_tiny_model(tmp_path / "whole.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    for size in range(4, len(whole), len(whole) // 40):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError):
            await load(path)
    path.write_bytes(whole)
    await (await load(path)).close()


async def test_more_sequences_than_the_library_holds_are_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    with pytest.raises(OurError, match="num_sequences is 257; 1 to 256"):
        await LlamaEngine.load(path, context_length=256, num_sequences=257, num_threads=1)


async def test_a_model_with_another_digest_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    assert await resolve_model(ModelSettings(path=path, sha256=right), tmp_path) == path
    with pytest.raises(ModelError) as refusal:
        await resolve_model(ModelSettings(path=path, sha256="0" * 64), tmp_path)
    assert right in str(refusal.value)
    assert "0" * 64 in str(refusal.value)
    with pytest.raises(ModelError, match="cannot read the model"):
        await resolve_model(ModelSettings(path=tmp_path / "none.gguf", sha256=right), tmp_path)


async def answer(models: dict[Peer, Path], embedders: dict[Peer, Path]) -> EnginePair:
    """An answer of two ends with these files, and its oracle where there is one."""
    async with AsyncExitStack() as stack:
        engines, opened = {}, {}
        for peer in Peer:
            engines[peer] = await load(models[peer])
            stack.push_async_callback(engines[peer].close)
            opened[peer] = await open_embedder(str(embedders[peer]))
            stack.callback(opened[peer].close)
        pair = EnginePair(ASKED, Way(rtt_seconds=0.05), engines, opened)
        await pair.run()
        if pair.written.tokens:
            assert pair.written.degraded == set()
            assert pair.written.tokens == await pair.oracle(engines)
        return pair


@pytest.fixture
def embedder(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "embedder.gguf", pooling=gguf.PoolingType.MEAN)


def assert_refused(pair: EnginePair, field: str, *values: str) -> None:
    """Both ends say which field differs, with both values; nothing was written."""
    assert pair.written.tokens == []
    for closed in pair.written.closed.values():
        assert closed.reason is FinishReason.ERROR
        assert f"differ in {field}:" in closed.error
        for value in values:
            assert value in closed.error


async def test_a_model_of_another_vocabulary_is_refused_with_both_fingerprints(tmp_path: Path, embedder: Path) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf")
    pair = await answer({Peer.OPENER: bundled_model(), Peer.OTHER: tiny}, dict.fromkeys(Peer, embedder))
    fingerprints = [each.fingerprint.vocabulary for each in pair.preparations.values()]
    assert len(set(fingerprints)) == 2
    assert_refused(pair, "vocabulary", *fingerprints)


async def test_a_model_of_another_size_with_the_same_vocabulary_answers_with_the_bundled_one(
    tmp_path: Path, embedder: Path
) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf", tokeniser=bundled_tokeniser(), num_layers=1)
    pair = await answer({Peer.OPENER: tiny, Peer.OTHER: bundled_model()}, dict.fromkeys(Peer, embedder))
    assert len(pair.written.tokens) > 1
    report = pair.written.closed[Peer.OPENER].report
    assert report is not None
    assert report.num_mixed > 0


async def test_the_vocabulary_is_the_same_in_a_copy_and_not_in_another_order(tmp_path: Path) -> None:
    bundled, copy = (
        await load(bundled_model()),
        await load(write_tiny_model(tmp_path / "tiny.gguf", tokeniser=bundled_tokeniser(), num_layers=1)),
    )
    for text in ("Which gate, <|im_end|>?", "  12 \u00e9\U0001f600\n"):
        for special in (True, False):
            assert bundled.tokenise(text, special=special) == copy.tokenise(text, special=special)
    assert vocabulary_fingerprint(bundled.vocabulary) == vocabulary_fingerprint(copy.vocabulary)
    await bundled.close()
    await copy.close()


@pytest.mark.parametrize("is_named_alike", [False, True])
async def test_embedding_models_that_differ_are_refused_with_both(tmp_path: Path, is_named_alike: bool) -> None:
    tiny = write_tiny_model(tmp_path / "tiny.gguf")
    embedders = {}
    for seed, peer in enumerate(Peer):
        folder = tmp_path / peer
        folder.mkdir()
        name = "mean.gguf" if is_named_alike else f"mean-{seed}.gguf"
        embedders[peer] = write_tiny_model(folder / name, seed=seed, pooling=gguf.PoolingType.MEAN)
    pair = await answer(dict.fromkeys(Peer, tiny), embedders)
    if is_named_alike:
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in embedders.values()]
        assert_refused(pair, "embedding_revision", *digests)
    else:
        assert_refused(pair, "embedding", "mean-0", "mean-1")


async def test_a_language_model_is_no_embedding_model(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "tiny.gguf")
    with pytest.raises(ModelError, match="no embedding model"):
        await open_embedder(str(path))
    with pytest.raises(ModelError, match="bundled://"):
        await open_embedder("https://example.org/model.gguf")


async def test_a_gguf_embedding_model_gives_unit_vectors_and_survives_an_empty_text(embedder: Path) -> None:
    model = await LlamaEmbedder.load(embedder)
    texts = ["Which gate?", "The gate is 12.", "gate " * 2000]
    together = await model.embed(texts)
    assert together.shape == (3, model.dimension)
    assert (together**2).sum(axis=1) == pytest.approx(1.0)
    assert (await model.embed(texts[1:2]) == together[1:2]).all()
    with pytest.raises(OurError, match="without tokens"):
        await model.embed(["", "gate"])
    assert (await model.embed(texts[:1]) == together[:1]).all()
    assert (await model.embed([])).shape == (0, model.dimension)
    model.close()
