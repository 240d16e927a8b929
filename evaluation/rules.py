"""Which weighting rule answers most: the study by which the default rule is chosen. Run: python -m evaluation.rules.

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
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dragon_core.errors import ModelError
from dragon_runtime.embedding.choice import BUNDLED, open_embedder
from dragon_runtime.engines.llama.engine import LlamaEngine
from dragon_runtime.models import bundled_model
from evaluation.choosing import BASELINES, Answered, Half, Measured, choose, half_of, report
from evaluation.factbook import prompts
from evaluation.methods.method import Method
from evaluation.methods.two_sides import CANDIDATES, DEFAULTS
from evaluation.questions import Kind, Study, make_study
from evaluation.writing import CONTEXT_LENGTH, Requests, Writer

QUICK_PER_KIND = 8
RESULTS = Path("build/rules.json")


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
    parser = argparse.ArgumentParser(prog="python -m evaluation.rules", description=__doc__)
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
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        _show(Console(), found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
