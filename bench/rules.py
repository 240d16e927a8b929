"""Which weighting rule answers most: the study by which the default rule is chosen. Run: python -m bench.rules.

Tokens do not depend on the link, so every answer is written here in one process without a protocol: greedily, with the
contexts of both sides, the published form and the coupling of a real answer.

Even questions are for development, odd ones are held out. The criterion is the mean over the three kinds of questions
of the rate of correct answers on the development half; of equal methods the simpler one is taken (fewer parameters, no
bare prompt, the default). It chooses the parameters of each rule and the best of these; the held-out half judges them.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.ends import FixedPassages, Settings, open_message
from bench.factbook import Prompt, prompts
from bench.questions import Kind, Study, make_study
from bench.scoring import (
    BASELINES,
    CANDIDATES,
    DEFAULTS,
    Answered,
    Half,
    Measured,
    Method,
    Sides,
    choose,
    half_of,
    report,
)
from dragon_core.couplings.shared_noise import SharedNoise
from dragon_core.errors import ModelError
from dragon_core.session.ending import Ending
from dragon_core.types import Peer, Published
from dragon_runtime.answering.preparation import Preparation
from dragon_runtime.embedding.choice import BUNDLED, open_embedder
from dragon_runtime.engines.llama.branches import MAX_FED_TOKENS, PREFILL_CHUNK
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.engines.llama.memory import LlamaSequences, Piece
from dragon_runtime.engines.llama.model import LlamaModel
from dragon_runtime.engines.publishing import publish_step
from dragon_runtime.interfaces import Embedder, Engine, EngineRequest, Passage
from dragon_runtime.models import bundled_model
from dragon_runtime.settings import ProtocolSettings

CONTEXT_LENGTH = 1024
MAX_TOKENS = 40
MAX_PROMPTS = 4
"""Of one question: each side's context, the bare prompt, and the one prompt with all passages."""
QUICK_PER_KIND = 8
RESULTS = Path("build/rules.json")
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
        message = open_message(preparation, prompt.question, settings)
        requests = []
        for self._passages.found in _passages(method.sides, prompt):
            requests.append(await preparation.engine_request(message))
        return requests

    def _preparation(self, method: Method) -> Preparation:
        if method.name not in self._preparations:
            num_passages = 4 if method.sides is Sides.ONE_PROMPT else 2
            self._preparations[method.name] = Preparation(
                engine=self._engine,
                embedder=self._embedder,
                retriever=self._passages,
                protocol=ProtocolSettings(
                    weighting=method.weighting, num_passages=num_passages, passages_per_context=num_passages
                ),
            )
        return self._preparations[method.name]


def _passages(sides: Sides, prompt: Prompt) -> list[Sequence[Passage]]:
    match sides:
        case Sides.TWO:
            return [prompt.edge, prompt.cloud]
        case Sides.EDGE_ONLY:
            return [prompt.edge]
        case Sides.CLOUD_ONLY:
            return [prompt.cloud]
        case Sides.ONE_PROMPT:
            return [sorted((*prompt.edge, *prompt.cloud), key=lambda passage: -passage.relevance)]


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


# -- the study ----------------------------------------------------------------------------------------------------


async def measure(
    study: Study, path: Path, *, candidates: Sequence[Method], num_threads: int, on_question: Callable[[], None]
) -> Measured:
    """Ask the development half with every candidate and baseline, choose, and ask the held-out half.

    Raises:
        ModelError: the model cannot be loaded.
    """
    embedder = await open_embedder(BUNDLED)
    engine = await LlamaEngine.load(path, context_length=CONTEXT_LENGTH, num_sequences=1, num_threads=1)
    requests, writer = Requests(engine, embedder), Writer(path, num_threads=num_threads)
    found = await prompts(
        embedder,
        texts=(study.private, study.public),
        questions=[(question.text, question.kind) for question in study.questions],
    )
    halves: dict[Half, list[Answered]] = {half: [] for half in Half}
    for question, prompt in zip(study.questions, found, strict=True):
        halves[half_of(question)].append(Answered(question=question, prompt=prompt))

    async def ask(half: Half, methods: Sequence[Method]) -> None:
        for each in halves[half]:
            writer.forget()
            for method in methods:
                each.texts[method.name] = writer.write(await requests.of(method, each.prompt))
            on_question()

    methods = {Half.DEVELOPMENT: (*candidates, *BASELINES)}
    await ask(Half.DEVELOPMENT, methods[Half.DEVELOPMENT])
    choice = choose(halves[Half.DEVELOPMENT], candidates)
    methods[Half.HELD_OUT] = tuple(choice.to_judge)
    await ask(Half.HELD_OUT, methods[Half.HELD_OUT])
    await engine.close()
    embedder.close()
    return Measured(halves=halves, methods=methods, choice=choice)


def _show(console: Console, found: Mapping[str, Any]) -> None:
    for half in Half:
        table = Table(title=f"{half}: correct answers, with 95 % intervals")
        for heading in ("method", *Kind, "mean of kinds", "F1"):
            table.add_column(heading, overflow="fold")
        by_method: dict[str, list[Mapping[str, Any]]] = {}
        for row in (*found["rules"], *found["baselines"]):
            if row["half"] == half:
                by_method.setdefault(row["method"], []).append(row)
        for name, cells in by_method.items():
            style = "bold" if name == found["chosen"]["method"] else ""
            table.add_row(name, *(_cell(row) for row in cells), f"{cells[-1]['f1']:.2f}", style=style)
        console.print(table)
    chosen = found["chosen"]
    low, high = chosen["held_out_interval"]
    console.print(
        f"chosen on the development half: {chosen['method']}; "
        f"held out {chosen['held_out_rate']:.0%} ({low:.0%} to {high:.0%}), in pairs with"
    )
    for name, other in chosen["held_out_better_by"].items():
        console.print("  {:<28}{:+.0%} ({:+.0%} to {:+.0%})".format(name, other["difference"], *other["interval"]))
    lacking = sum(not answer["is_found"] for answer in found["answers"])
    console.print(
        f"{lacking} of {len(found['answers'])} questions whose facts retrieval did not find\n{found['central']}"
    )
    console.print(f"{found['model']}, {found['machine']['processor']}, {found['seconds']:.0f} s")


def _cell(row: Mapping[str, Any]) -> str:
    low, high = row["interval"]
    return f"{row['num_correct']}/{row['num_questions']} {row['rate']:.0%} ({100 * low:.0f}-{100 * high:.0f})"


def _processor() -> str:
    """What the kernel calls it."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def main() -> int:
    """Command line; 0 when everything was asked, whatever came out."""
    parser = argparse.ArgumentParser(prog="python -m bench.rules", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PER_KIND} questions a kind, no grid, two minutes")
    parser.add_argument("--model", type=Path, help="a GGUF file (the bundled model)")
    parser.add_argument("--threads", type=int, default=2, help="of a decode (%(default)s)")
    parser.add_argument("--output", type=Path, nargs="?", const=RESULTS, help="write the JSON to a file (%(const)s)")
    arguments = parser.parse_args()
    path = arguments.model or bundled_model()
    study, candidates = (make_study(), CANDIDATES) if not arguments.quick else (make_study(QUICK_PER_KIND), DEFAULTS)
    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("questions", total=len(study.questions))
        asking = measure(
            study,
            path,
            candidates=candidates,
            num_threads=arguments.threads,
            on_question=lambda: progress.advance(task),
        )
        try:
            measured = asyncio.run(asking)
        except ModelError as error:
            raise SystemExit(f"{parser.prog}: {error}") from None
    found = {
        **report(measured),
        "model": path.name,
        "machine": {
            "processor": _processor(),
            "num_cores": os.cpu_count(),
            "num_threads": arguments.threads,
            "python": platform.python_version(),
            "llama_cpp_python": version("llama-cpp-python"),
        },
        "seconds": time.monotonic() - started,
    }
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if arguments.json:
        json.dump(found, sys.stdout, ensure_ascii=False)
        print()
    else:
        _show(Console(), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
