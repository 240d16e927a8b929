"""Bounds of every parameter and message that more than one border checks, written once. Data only.

A border has a closed type of its own (docs/structures.md) and takes its bounds from here.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`, both included; `low` itself is not where `is_above` is set."""

    low: float
    high: float
    is_above: bool = False

    def keywords(self) -> dict[str, Any]:
        """As msgspec's `Meta` and pydantic's `Field` both spell it."""
        return {"gt" if self.is_above else "ge": self.low, "le": self.high}

    def lengths(self) -> dict[str, Any]:
        """The same for how long something is."""
        return {"min_length": int(self.low), "max_length": int(self.high)}


# How contexts are weighed, and what is published of the result (docs/protocol.md, sections 1 and 2).
WEIGHTING_TEMPERATURE = Range(0, 100, is_above=True)
WEIGHTING_BETA = Range(0, 100)
WEIGHTING_GAMMA = Range(0, 100)
MAX_PUBLISHED_TOKENS = Range(1, 1024)
NUCLEUS = Range(0, 1, is_above=True)

# What an answer is prompted with, and how far it is drafted ahead.
NUM_PASSAGES = Range(0, 64)
PASSAGES_PER_CONTEXT = Range(1, 64)
WINDOW = Range(1, 256)
BRANCHES = Range(1, 16)

# What a user may ask for. The wire takes higher temperatures than the API.
TEMPERATURE = Range(0, 10)
ASKED_TEMPERATURE = Range(0, 2)
MIN_P = Range(0, 1)
TOP_P = Range(0, 1, is_above=True)
MAX_TOKENS = Range(1, 1_000_000)
NUM_TOP_LOGPROBS = Range(0, 20)
NUM_STOPS, STOP_CHARACTERS = Range(0, 4), Range(1, 128)

# What a language model may take of a machine.
CONTEXT_LENGTH = Range(128, 1_048_576)
NUM_SEQUENCES = Range(1, 256)
NUM_THREADS = Range(1, 1024)

# Numbers on the wire.
POSITION = Range(0, 1_000_000)
WEIGHT_LEVEL = Range(-10_240_000, 10_240_000)
MASS_LEVEL = Range(0, 65_535)
SHARE_LEVEL = Range(0, 1000)
SECONDS = Range(0, 86_400)
PORT = Range(1, 65_535)

# What an end takes another's word for, in seconds: a longer duration counts as this one.
MAX_DECODE_SECONDS = 1.0
MAX_RTT_SECONDS = 2.0
MAX_RETRY_AFTER_SECONDS = 60.0
MAX_DEADLINE_SECONDS = 600.0

# Lengths on the wire. Each is the most that an end takes in within 2 ms of its event loop.
SETTLED_TOKENS = Range(0, 16_384)
TARGET_TOKENS = Range(1, 32)
HANDED_DRAFTS = Range(0, 32)
NAMED_DOCUMENTS = Range(0, 64)
