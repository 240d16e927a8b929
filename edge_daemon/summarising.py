"""How an answer came about, told to its user: from what the session reports to the `dragon` object."""

from collections.abc import Awaitable, Callable

from dragon_core.session.events import Report
from dragon_runtime.answering.cost import AnswerCost
from dragon_runtime.answering.sides import CLOUD, EDGE, SIDES
from dragon_runtime.answering.summary import (
    BothSides,
    BytesSent,
    DocumentShare,
    DragonSummary,
    DroppedMass,
    WastedSteps,
)
from dragon_runtime.settings import ProtocolSettings
from edge_daemon.answers import AnswerMode, AnswerRequest

NameOfDocument = Callable[[str], Awaitable[str | None]]
"""A document's name by its id; None where it is gone."""


async def summarise(
    request: AnswerRequest,
    protocol: ProtocolSettings,
    report: Report,
    cost: AnswerCost,
    *,
    name_of_document: NameOfDocument,
) -> DragonSummary:
    """The summary of an answer that was opened with these settings. Only our own documents have names."""
    share = report.opener_share
    dropped = report.dropped_mass_mean
    num_bytes = cost.sent_bytes + cost.received_bytes
    return DragonSummary(
        mode="edge_only" if request.mode is AnswerMode.EDGE_ONLY else "both",
        seed=request.seed,
        placement=SIDES[report.aggregator],
        coupling=protocol.coupling,
        weighting=protocol.weighting.rule,
        num_tokens=report.num_tokens,
        degraded_tokens=report.num_degraded,
        mixed_tokens=report.num_mixed,
        hit_rate=BothSides(edge=report.hit_rate[EDGE], cloud=report.hit_rate[CLOUD]),
        shares=BothSides(edge=share, cloud=None if share is None else 1.0 - share),
        documents=await _documents(report, name_of_document),
        dropped_mass=None if dropped is None else DroppedMass(mean=dropped, max=report.dropped_mass_max or dropped),
        bytes=BytesSent(edge_to_cloud=cost.sent_bytes, cloud_to_edge=cost.received_bytes),
        bytes_per_token=num_bytes / max(1, report.num_tokens),
        wasted_steps=WastedSteps(edge=report.num_wasted_steps[EDGE], cloud=report.num_wasted_steps[CLOUD]),
        first_token_seconds=cost.first_token_seconds,
        seconds_per_token=cost.seconds_per_token,
        rtt_seconds=report.rtt_seconds,
        window=protocol.window,
        max_window_used=report.max_window_used,
        takeovers=report.term,
    )


async def _documents(report: Report, name_of_document: NameOfDocument) -> tuple[DocumentShare, ...]:
    ours = [
        DocumentShare(id=key, name=await name_of_document(key), side=SIDES[EDGE], share=share)
        for key, share in report.our_documents
    ]
    theirs = [
        DocumentShare(id=document.document_id, name=None, side=SIDES[CLOUD], share=document.share / 1000)
        for document in report.their_documents
    ]
    return tuple(sorted((*ours, *theirs), key=lambda document: -document.share))
