"""What the protocol's benchmark must show, and its table: from one row per answer to ratios within one run."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from statistics import mean
from typing import Any

from rich.table import Table

Run = dict[str, Any]

SLOW_LINK_MS = 300.0
SLOW_LINK_LIMITS = {("relevance", "apart"): 0.12, ("relevance", "shared"): 0.14, ("equal", ""): 0.28}
EDGE_GREEDY_APART_LIMIT = 0.15
OWN_DECODING_LIMIT = 1.12
BYTES_LIMITS = {0.7: 300, 0.0: 200}
FIRST_TOKEN_LIMIT = 1.1
WAYS = ("edge_to_cloud", "cloud_to_edge")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A limit and what was measured."""

    name: str
    limit: float
    measured: float

    @property
    def met(self) -> bool:
        return self.measured <= self.limit


def select(runs: Iterable[Run], **wanted: object) -> list[Run]:
    """The rows with these values."""
    return [run for run in runs if all(run[key] == value for key, value in wanted.items())]


def by(runs: Iterable[Run], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Run]]]:
    """The rows in groups of equal keys."""

    def key(run: Run) -> tuple[Any, ...]:
        return tuple(run[each] for each in keys)

    for found, group in groupby(sorted(runs, key=key), key):
        yield found, list(group)


def seconds(runs: Iterable[Run]) -> float:
    """Mean seconds per token."""
    return mean(float(run["seconds_per_token"]) for run in runs)


def better_placement(runs: Iterable[Run]) -> list[Run]:
    """Per question the row of the placement that took less time, as a scheduler would choose it."""
    return [min(group, key=lambda run: run["seconds_per_token"]) for _, group in by(runs, "question", "temperature")]


def tokens_differ(runs: list[Run]) -> int:
    """How many answers differ from what the same prompt and seed gave elsewhere: other placement, link or method."""
    alike = [run for run in runs if run["method"] in ("ours", "synchronised")]
    keys = ("workload", "question", "weighting", "temperature", "seed")
    whole = sum(len({run["tokens_sha256"] for run in group}) - 1 for _, group in by(alike, *keys, "max_tokens"))
    first = sum(len({run["first_tokens_sha256"] for run in group}) - 1 for _, group in by(alike, *keys))
    return whole + first


def checks(runs: list[Run]) -> list[Check]:
    """Every limit that these rows can show."""
    found = [Check(name="answers whose tokens differ", limit=0, measured=tokens_differ(runs))]
    ours = select(runs, method="ours")
    for (workload, rule, temperature), group in by(ours, "workload", "weighting", "temperature"):
        cell = {"workload": workload, "weighting": rule, "temperature": temperature}
        name = f"{workload}, {rule}, T={temperature:g}"
        slow, synchronised = [
            select(runs, method=method, rtt_ms=SLOW_LINK_MS, **cell) for method in ("ours", "synchronised")
        ]
        if slow:
            limit = SLOW_LINK_LIMITS.get((rule, workload)) or SLOW_LINK_LIMITS[rule, ""]
            ratio = seconds(better_placement(slow)) / seconds(synchronised)
            found.append(
                Check(name=f"seconds per token at 300 ms over synchronised: {name}", limit=limit, measured=ratio)
            )
            found += _bytes_checks(slow, name, BYTES_LIMITS[temperature])
        if slow and (rule, workload, temperature) == ("relevance", "apart", 0.0):
            ratio = seconds(select(slow, placement="edge")) / seconds(synchronised)
            found.append(
                Check(name=f"the same, aggregator at the edge: {name}", limit=EDGE_GREEDY_APART_LIMIT, measured=ratio)
            )
        fast = select(group, rtt_ms=0.0)
        if fast:
            own = max(seconds(select(runs, method=method, **cell)) for method in ("edge_decode", "cloud_decode"))
            ratio = seconds(better_placement(fast)) / own
            found.append(
                Check(
                    name=f"seconds per token at 0 ms over own decoding: {name}",
                    limit=OWN_DECODING_LIMIT,
                    measured=ratio,
                )
            )
    found.append(
        Check(
            name="time to first token without the round trip over the slower prefill, worst answer",
            limit=FIRST_TOKEN_LIMIT,
            measured=max(
                (run["first_token_seconds"] - run["rtt_ms"] / 1000) / run["slower_prefill_seconds"] for run in ours
            ),
        )
    )
    return found


def _bytes_checks(slow: list[Run], name: str, limit: float) -> Iterator[Check]:
    for way in WAYS:
        measured = mean(run["bytes_per_token"][way] for run in better_placement(slow))
        yield Check(name=f"bytes per token at 300 ms, {way.replace('_', ' ')}: {name}", limit=limit, measured=measured)


def summary(runs: list[Run]) -> Table:
    """Mean milliseconds per token of every method over the prompts."""
    table = Table("workload", "rule", "T", "rtt ms", "method", "placement", "ms/token", "first s", "bytes up", "down")
    keys = ("workload", "weighting", "temperature", "rtt_ms", "method", "placement")
    for (workload, rule, temperature, rtt, method, placement), group in by(runs, *keys):
        cells = [workload, rule, f"{temperature:g}", f"{rtt:g}", method, placement, f"{1000 * seconds(group):.1f}"]
        if group[0]["first_token_seconds"] is not None:
            cells.append(f"{mean(run['first_token_seconds'] for run in group):.2f}")
            cells += [f"{mean(run['bytes_per_token'][way] for run in group):.0f}" for way in WAYS]
        table.add_row(*cells)
    return table
