"""Ask a device and show the answer as it arrives, each token in the colour of the end that contributed most."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dragon_cli.api_client import ApiClient
from dragon_core.errors import DragonError, shown, shown_lines

EDGE_COLOUR, CLOUD_COLOUR, BOTH_COLOUR, DEGRADED_COLOUR = "green", "deep_sky_blue1", "default", "yellow"
CLEAR_MAJORITY = 0.6
"""A token counts as written by both ends if neither end has this share of it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer: its text, why it ended, and its `dragon` object."""

    text: str
    finish_reason: str
    dragon: dict[str, Any]


def colour_of(edge_share: float | None, *, is_degraded: bool) -> str:
    """The colour of a token with this share of the edge."""
    if is_degraded:
        return DEGRADED_COLOUR
    if edge_share is None or 1 - CLEAR_MAJORITY < edge_share < CLEAR_MAJORITY:
        return BOTH_COLOUR
    return EDGE_COLOUR if edge_share >= CLEAR_MAJORITY else CLOUD_COLOUR


async def ask(client: ApiClient, request: dict[str, Any], *, on_text: Callable[[Text], None]) -> Answer:
    """Send a request and hand each coloured piece of text to `on_text`.

    Raises:
        DragonError: refused, unreachable or broken off.
    """
    texts: list[str] = []
    async for chunk in client.ask(request):
        for choice in chunk["choices"]:
            if content := choice["delta"].get("content"):
                told = chunk["dragon"]
                texts.append(content)
                on_text(
                    Text(shown_lines(content), style=colour_of(told["edge_share"], is_degraded=told["is_degraded"]))
                )
            if choice["finish_reason"] is not None:
                return Answer("".join(texts), choice["finish_reason"], chunk["dragon"])
    raise DragonError("the answer stopped before its end")


def show_legend(console: Console) -> None:
    """The meaning of each colour."""
    legend = Text.assemble(
        ("device", EDGE_COLOUR), " · ", ("cloud", CLOUD_COLOUR), " · both · ", ("device alone", DEGRADED_COLOUR)
    )
    console.print(legend)


def show_summary(console: Console, dragon: dict[str, Any]) -> None:
    """A summary of how the answer was written."""
    table = Table.grid(padding=(0, 2))
    pace = dragon["seconds_per_token"]
    table.add_row("tokens", f"{dragon['num_tokens']} ({dragon['degraded_tokens']} by the device alone)")
    if pace:
        table.add_row("speed", f"{1 / pace:.1f} tokens per second, first after {dragon['first_token_seconds']:.2f} s")
    table.add_row("shares", _sides(dragon["shares"]))
    table.add_row("hit rates", _sides(dragon["hit_rate"]))
    table.add_row("aggregator", dragon["placement"])
    table.add_row("bytes", f"{dragon['bytes']['edge_to_cloud']} up, {dragon['bytes']['cloud_to_edge']} down")
    for document in dragon["documents"]:
        named = Text(f"{document['share']:.2f}  {shown(document['name'] or document['id'])}")
        table.add_row(f"{document['side']} document", named)
    console.print(table)


def _sides(both: dict[str, float | None]) -> str:
    return ", ".join(f"{side} {'-' if value is None else f'{value:.2f}'}" for side, value in both.items())


def as_json(answer: Answer) -> str:
    """One JSON object: text, finish_reason, dragon."""
    body = {"text": answer.text, "finish_reason": answer.finish_reason, "dragon": answer.dragon}
    return json.dumps(body, ensure_ascii=False)
