"""The `dragon` object that goes with a finished answer: one schema for the HTTP API and `dragonctl ask --json`."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from dragon_core.fleet.messages import Side
from dragon_core.types import CouplingKind, WeightingRule


class SchemaPart(BaseModel):
    """Root of the parts: frozen and closed."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BothSides(SchemaPart):
    """One number per end; null if nothing was counted."""

    edge: float | None = Field(description="Of the edge peer.")
    cloud: float | None = Field(description="Of the cloud peer.")


class WastedSteps(SchemaPart):
    """Steps of the language models whose results were dropped."""

    edge: int = Field(ge=0, description="Of the edge peer.")
    cloud: int = Field(ge=0, description="Of the cloud peer.")


class BytesSent(SchemaPart):
    """Bytes of all frames of the answer, without what the transport adds."""

    edge_to_cloud: int = Field(ge=0, description="Sent by the device.")
    cloud_to_edge: int = Field(ge=0, description="Sent by the cloud.")


class DroppedMass(SchemaPart):
    """Bound on how far the mixture was from the uncut one, total variation per position."""

    mean: float = Field(description="Mean over the positions where both frames were present.")
    max: float = Field(description="Maximum over the same positions.")


class DocumentShare(SchemaPart):
    """A document with a share in the answer."""

    id: str = Field(description="Id of the document; for a cloud document, its public id.")
    name: str | None = Field(description="Name of the document; null for a cloud document.")
    side: Side = Field(description="End that holds the document.")
    share: float = Field(description="Mean share in the tokens, over the positions where both frames were present.")


class DragonSummary(SchemaPart):
    """How an answer was written."""

    mode: Literal["both", "edge_only"] = Field(description="Whether the cloud was asked.")
    seed: int = Field(description="Seed of the answer: the same request with it gives the same answer.")
    placement: Side = Field(description="The end that aggregated last.")
    coupling: CouplingKind = Field(description="How tokens were chosen.")
    weighting: WeightingRule = Field(description="How contexts were weighted.")
    num_tokens: int = Field(ge=0, description="Tokens of the answer, the end token included.")
    degraded_tokens: int = Field(
        ge=0, description="Tokens written by the edge peer alone because the cloud did not answer."
    )
    mixed_tokens: int = Field(ge=0, description="Tokens fixed from the frames of both ends.")
    hit_rate: BothSides = Field(description="Share of an end's drafts that became the token.")
    shares: BothSides = Field(description="Mean share in the tokens fixed from both frames; the two add up to 1.")
    documents: tuple[DocumentShare, ...] = Field(description="Documents with a share in the answer, largest first.")
    dropped_mass: DroppedMass | None = Field(
        description="Bound on the distance between the mixture and the uncut one, in total variation."
    )
    bytes: BytesSent = Field(description="Bytes sent between the ends, without transport overhead.")
    bytes_per_token: float = Field(ge=0, description="Bytes in both directions per token.")
    wasted_steps: WastedSteps = Field(description="Steps of the language models discarded because of misses.")
    first_token_seconds: float | None = Field(description="Time from the request to the first token.")
    seconds_per_token: float | None = Field(description="Mean time between tokens after the first.")
    rtt_seconds: float | None = Field(description="Smoothed round-trip time to the cloud peer.")
    window: int = Field(ge=1, description="Maximum number of positions an end could publish ahead.")
    max_window_used: int = Field(ge=0, description="Largest number of positions published ahead.")
    takeovers: int = Field(ge=0, description="How often the edge peer continued alone.")


def field_rows(part: type[BaseModel], prefix: str = "") -> list[str]:
    """Rows of a Markdown table (field, type, meaning), nested fields with dots, lists with `[]`."""
    rows: list[str] = []
    for name, field in part.model_fields.items():
        nested, mark = _nested(field.annotation)
        kind = "list" if mark else _json_kind(part, name)
        rows.append(f"| `{prefix}{name}` | {kind} | {field.description} |")
        if nested is not None:
            rows += field_rows(nested, f"{prefix}{name}{mark}.")
    return rows


def _nested(annotation: object) -> tuple[type[BaseModel] | None, str]:
    """The part inside a field's type, and `[]` when it is a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    mark = "[]" if getattr(annotation, "__origin__", None) is tuple else ""
    for inside in getattr(annotation, "__args__", ()):
        found, _ = _nested(inside)
        if found is not None:
            return found, mark
    return None, mark


def _json_kind(part: type[BaseModel], name: str) -> str:
    """The JSON type of a field as its schema has it."""
    schema = part.model_json_schema()
    shape = schema["properties"][name]
    kinds = []
    for option in shape.get("anyOf", [shape]):
        named = schema["$defs"][option["$ref"].rsplit("/", 1)[-1]] if "$ref" in option else option
        kinds.append(", ".join(f"`{choice}`" for choice in named["enum"]) if "enum" in named else named["type"])
    return " or ".join(kinds)
