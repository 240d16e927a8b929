"""A local stack as `dragonctl up` starts it, for tests: commands, questions, faults in mid-answer, and metrics."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families

from dragon_cli.stack import Stack
from local_cluster.waiting import wait_until


def dragonctl(*arguments: str, folder: Path, before: tuple[str, ...] = ()) -> "subprocess.CompletedProcess[str]":
    """Run a command; `before` is what runs it."""
    return subprocess.run(
        [*before, sys.executable, "-m", "dragon_cli.main", *arguments],
        env={**os.environ, "DRAGONCTL_FOLDER": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def wait_until_mixing(stack: Stack) -> None:
    url = f"{stack.plan()['api_url']}/readyz"
    wait_until(lambda: httpx.get(url).json()["status"] == "ready", "the cloud is heard")


def pid_of(stack: Stack, part: str) -> int:
    """The process of a part; waits while it is being started again."""
    found: list[int] = []

    def is_there() -> bool:
        found[:] = [each.pid for each in stack.parts() if each.name == part and each.is_running and each.pid]
        return bool(found)

    wait_until(is_there, f"{part} runs")
    return found[0]


def sample(url: str, name: str, **labels: str) -> float:
    """A metric of the edge's API or of a cloud peer, summed over the labels that are not given."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    found = (sample for family in families for sample in family.samples if sample.name == name)
    return sum(sample.value for sample in found if labels.items() <= sample.labels.items())


@dataclass
class Streamed:
    """A streamed answer: its pieces, whether each is degraded, and the `dragon` object."""

    texts: list[str] = field(default_factory=list)
    is_degraded: list[bool] = field(default_factory=list)
    dragon: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def text_before_degraded(self) -> str:
        """What was written before the device first went on alone."""
        first = self.is_degraded.index(True) if True in self.is_degraded else len(self.texts)
        return "".join(self.texts[:first])

    @property
    def is_mixed_again(self) -> bool:
        """Whether a token of both ends came after one of the device alone."""
        return True in self.is_degraded and False in self.is_degraded[self.is_degraded.index(True) :]


def request(client: OpenAI, question: str, **options: Any) -> dict[str, Any]:
    model = client.models.list().data[0].id
    return {"model": model, "messages": [{"role": "user", "content": question}], "seed": 5, **options}


def ask(client: OpenAI, question: str, **options: Any) -> tuple[str, dict[str, Any]]:
    """(text, the `dragon` object) of a completion that is not streamed."""
    whole = client.chat.completions.create(**request(client, question, **options)).model_dump()
    return whole["choices"][0]["message"]["content"], whole["dragon"]


def stream(
    client: OpenAI,
    question: str,
    *,
    on_piece: Callable[[Streamed], None] = lambda _: None,
    is_enough: Callable[[Streamed], bool] = lambda _: False,
    **options: Any,
) -> Streamed:
    """A streamed answer, left early when it is enough: how long something takes differs between machines."""
    streamed = Streamed()
    with client.chat.completions.create(stream=True, **request(client, question, **options)) as chunks:
        for chunk in chunks:
            body = chunk.model_dump()
            if content := body["choices"][0]["delta"].get("content"):
                streamed.texts.append(content)
                streamed.is_degraded.append(body["dragon"]["is_degraded"])
                on_piece(streamed)
                if is_enough(streamed):
                    return streamed
            elif body["choices"][0]["finish_reason"]:
                streamed.dragon = body["dragon"]
    assert streamed.dragon, "the answer has no end"
    return streamed


def at_piece(number: int, act: Callable[[], None]) -> Callable[[Streamed], None]:
    """Act once, after so many pieces."""
    return lambda streamed: act() if len(streamed.texts) == number else None


def is_prefix(one: str, other: str) -> bool:
    """Whether two answers agree as far as both go."""
    return one.startswith(other) or other.startswith(one)
