"""`dragonctl demo`: real questions to a real stack over a slow link, next to the answers of each end alone."""

import json
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dragon_cli.api_client import ApiClient
from dragon_cli.asking import ask, show_legend
from dragon_cli.documents import add_files, files_below
from dragon_cli.stack import Stack, StackOptions, write_whole
from dragon_cli.starting import start, wait_until_ready
from dragon_core.errors import OurError, shown
from dragon_runtime.embedding.choice import BUNDLED, open_embedder
from dragon_runtime.engines.choice import open_engine
from dragon_runtime.models.resolving import resolve_model
from dragon_runtime.settings import ModelSettings, PeerSettings
from dragon_runtime.store.milvus import MilvusStore
from evaluation.alone import Baseline, BothRetrievers, alone

MAX_TOKENS = 48
SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question, the end whose documents it needs, and the facts a correct answer names (any word of each group)."""

    question: str
    needs: str
    reference: str
    facts: list[list[str]]

    def is_answered_by(self, text: str) -> bool:
        """Whether every fact is named; nothing else is judged."""
        return all(any(word in text.lower() for word in fact) for fact in self.facts)


async def run_demo(options: StackOptions, *, folder: Path | None, output: Path, console: Console) -> None:
    """Ask every question over the link and alone, print a table, and write `output`.

    Raises:
        DragonError: the stack does not start, or a question gets no answer.
    """
    with ExitStack() as scope:
        place = folder or Path(scope.enter_context(tempfile.TemporaryDirectory(prefix="dragon-demo-")))
        documents = Path(str(scope.enter_context(resources.as_file(resources.files("dragon_cli") / "demo_documents"))))
        questions = [Question(**row) for row in json.loads((documents / "questions.json").read_text())]
        stack = Stack(place)
        console.print("[bold]1. Starting a broker, a cloud peer and an edge daemon on this machine[/bold]")
        start(stack, replace(options, public_documents=documents / "public"))
        try:
            await wait_until_ready(stack, console)
            answers = await _ask_all(stack, questions, documents / "private", options, console)
        finally:
            stack.stop()
        console.print(
            "\n[bold]3. The same questions with one side's documents, and with all passages in one prompt[/bold]"
        )
        await _add_baselines(stack, questions, answers, console)
    _show(answers, console)
    output.parent.mkdir(parents=True, exist_ok=True)
    found = {"rtt_ms": options.rtt_ms, "seed": SEED, "temperature": 0.0, "answers": answers}
    write_whole(output, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    console.print(f"\neverything is stopped; results: {output}")


async def _ask_all(
    stack: Stack, questions: Sequence[Question], private: Path, options: StackOptions, console: Console
) -> list[dict[str, Any]]:
    answers = []
    async with ApiClient(stack.plan()["api_url"]) as client:
        if await add_files(client, files_below(private), console):
            raise OurError("the demo's documents could not be added; see `dragonctl logs edge`")
        model = await client.model()
        console.print(f"\n[bold]2. Asking {model} on the device, {options.rtt_ms:g} ms round trip to the cloud[/bold]")
        show_legend(console)
        for question in questions:
            console.print(f"\n[bold]? {question.question}[/bold]  (needs {question.needs})")
            request = _request(question, model)
            mixed = await ask(client, request, on_text=lambda piece: console.print(piece, end=""))
            console.print()
            silent = await ask(client, {**request, "dragon": {"mode": "edge_only"}}, on_text=lambda _: None)
            answers.append(
                {
                    "question": question.question,
                    "needs": question.needs,
                    "reference": question.reference,
                    **_figures(question, mixed.text, mixed.dragon),
                    "edge_only": _figures(question, silent.text, silent.dragon),
                }
            )
    return answers


def _request(question: Question, model: str) -> dict[str, Any]:
    return {
        "model": model,
        "messages": [{"role": "user", "content": question.question}],
        "temperature": 0,
        "seed": SEED,
        "max_tokens": MAX_TOKENS,
    }


def _figures(question: Question, text: str, dragon: dict[str, Any]) -> dict[str, Any]:
    num_tokens = max(1, dragon["num_tokens"])
    return {
        "text": text,
        "correct": question.is_answered_by(text),
        "num_tokens": dragon["num_tokens"],
        "degraded_tokens": dragon["degraded_tokens"],
        "hit_rate": dragon["hit_rate"],
        "bytes_per_token": {way: num_bytes / num_tokens for way, num_bytes in dragon["bytes"].items()},
        "shares": dragon["shares"],
        "placement": dragon["placement"],
        "first_token_seconds": dragon["first_token_seconds"],
        "seconds_per_token": dragon["seconds_per_token"],
    }


async def _add_baselines(
    stack: Stack, questions: Sequence[Question], answers: list[dict[str, Any]], console: Console
) -> None:
    """Write the same answers from the stack's stores with one engine and no link."""
    settings = yaml.safe_load((stack.folder / "edge.yaml").read_text())
    model = ModelSettings(**settings["model"])
    protocol = PeerSettings(**({"weighting": settings["weighting"]} if "weighting" in settings else {}))
    with console.status("answering alone"):
        async with AsyncExitStack() as scope:
            engine = await open_engine(model, await resolve_model(model, stack.folder / "edge" / "models"))
            scope.push_async_callback(engine.close)
            embedder = await open_embedder(BUNDLED)
            scope.callback(embedder.close)
            stores = {}
            for side in ("edge", "cloud"):
                stores[side] = await MilvusStore.open_folder(stack.folder / side / "store", embedder=embedder)
                scope.push_async_callback(stores[side].close)
            one_prompt = protocol.model_copy(
                update={"passages_per_context": 2 * protocol.num_passages, "num_passages": 2 * protocol.num_passages}
            )
            both = BothRetrievers(stores["edge"], stores["cloud"])
            for question, answer in zip(questions, answers, strict=True):
                for name, retriever, settings_used in (
                    ("cloud_only", stores["cloud"], protocol),
                    ("one_prompt", both, one_prompt),
                ):
                    baseline = await alone(
                        question.question,
                        engine=engine,
                        embedder=embedder,
                        retriever=retriever,
                        protocol=settings_used,
                        seed=SEED,
                        max_tokens=MAX_TOKENS,
                    )
                    answer[name] = _alone_figures(question, baseline)


def _alone_figures(question: Question, baseline: Baseline) -> dict[str, Any]:
    """A side that answers alone guesses nothing and sends nothing."""
    return {
        **asdict(baseline),
        "correct": question.is_answered_by(baseline.text),
        "degraded_tokens": 0,
        "hit_rate": {"edge": None, "cloud": None},
        "bytes_per_token": {"edge_to_cloud": 0.0, "cloud_to_edge": 0.0},
        "shares": {"edge": None, "cloud": None},
    }


COLUMNS = (("ours", None), ("edge only", "edge_only"), ("cloud only", "cloud_only"), ("one prompt", "one_prompt"))


def _show(answers: list[dict[str, Any]], console: Console) -> None:
    """Every answer of every method, right or wrong."""
    for answer in answers:
        console.print(f"\n[bold]? {answer['question']}[/bold]  (needs {answer['needs']}; {answer['reference']})")
        table = Table("method", "right", "tokens/s", "hits e/c", "bytes/token up/down", "shares e/c")
        for name, key in COLUMNS:
            row = answer if key is None else answer[key]
            right = Text("yes", "green") if row["correct"] else Text("no", "red")
            pace = row["seconds_per_token"]
            bytes_each_way = "/".join(f"{value:.0f}" for value in row["bytes_per_token"].values())
            table.add_row(
                name,
                right,
                f"{1 / pace:.1f}" if pace else "-",
                _both(row["hit_rate"]),
                bytes_each_way,
                _both(row["shares"]),
            )
        console.print(table, soft_wrap=False)
        for name, key in COLUMNS:
            text = (answer if key is None else answer[key])["text"]
            console.print(Text.assemble((f"{name:<11}", "bold"), shown(" ".join(text.split()))))
    console.print(
        "\ncloud only and one prompt run on this machine without a link: their speed is that of decoding alone"
    )


def _both(sides: dict[str, float | None]) -> str:
    return "/".join("-" if value is None else f"{value:.2f}" for value in sides.values())
