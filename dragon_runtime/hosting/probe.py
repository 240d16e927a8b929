"""Whether a language model still decodes: by what its sessions have it do, or by a token for nobody when it is idle."""

import asyncio

from dragon_core.errors import EngineError
from dragon_core.types import Context, Cut, Sampling, Step, Weighting, WeightingRule
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.interfaces import EngineRequest
from dragon_runtime.process.tasks import end_after_cleanup

LOOK_SECONDS = 0.005
REQUEST = EngineRequest(
    contexts=(Context(tokens=(0,), relevance=0.0),),
    bare_prompt=None,
    weighting=Weighting(rule=WeightingRule.EQUAL),
    sampling=Sampling(temperature=0.0),
    cut=Cut(max_published_tokens=1),
    max_branches=1,
    max_tokens=1,
)


async def require_decoding(engine: LlamaEngine, *, seconds: float) -> None:
    """Return when the model has decoded something since the call.

    An idle model whose sequences are all held by sessions that want nothing now is taken at its word.

    Raises:
        EngineError: it decoded nothing in so many seconds, or its thread ended.
    """
    before = engine.num_decodes
    asking: asyncio.Task[None] | None = None
    try:
        async with asyncio.timeout(seconds):
            while engine.num_decodes == before:
                engine.require_running()
                if asking is None and not engine.is_busy:
                    if not engine.num_free_sequences:
                        return
                    asking = asyncio.create_task(_decode_one(engine), name="probe")
                if asking is not None and asking.done():
                    asking.result()
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise EngineError(f"the model decoded nothing in {seconds:g} s") from error
    finally:
        await end_after_cleanup([] if asking is None else [asking])


async def _decode_one(engine: LlamaEngine) -> None:
    session = await engine.open(REQUEST, on_step=_ignore_step, on_failure=_ignore_failure)
    await session.close()


def _ignore_step(_ticket: int, _step: Step) -> None:
    """Nothing is fed after the prompt."""


def _ignore_failure(_error: Exception) -> None:
    """The engine's thread ended: the next look tells."""
