"""What somebody else wrote, in every way into a log, an error body or a terminal: it steers nothing there."""

import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from dragon_cli import command
from dragon_cli.asking import ask
from dragon_core import codec, errors
from dragon_core.errors import DragonError, PeerError, shown, shown_lines
from dragon_core.fleet import messages as fleet
from dragon_core.messages import (
    AnyMessage,
    Counters,
    DocumentShare,
    Envelope,
    Failure,
    Finish,
    FinishReason,
    MoveRequest,
    Refused,
)
from dragon_core.types import Peer
from dragon_runtime.documents.sources import FoundDocument, SkippedDocument
from dragon_runtime.process.logs import TRACE_MARK, set_up_logging
from dragon_runtime.settings.groups import LogFormat, LogLevel, LogSettings
from edge_daemon.api.errors import Problem, problem_of
from simulator.oracle import Question
from simulator.peer_pair import PeerPair
from simulator.schedule import Schedule

STEERING = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
hostile = st.text(st.characters() | st.sampled_from("\n\r\x1b\x07\x00\x9b\u2028\u202e\u2066\x7f"), max_size=60)
arriving = hostile.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
"""Frames and JSON hold no surrogates: they are refused."""
FORGED = "no\n2026-01-01 INFO dragon forged\r\x1b[2J\u202egnp.exe"


def is_safe(text: str, *, allowed: str = "") -> bool:
    return STEERING.search("".join(letter for letter in text if letter not in allowed)) is None


@given(st.text() | hostile)
@example(FORGED)
def test_what_is_shown_steers_nothing(text: str) -> None:
    once = shown(text)
    assert is_safe(once)
    assert shown(once) == once
    once.encode()
    assert is_safe(shown_lines(text), allowed="\n\t")
    assert shown_lines(text).count("\n") == text.count("\n")


@given(st.text(st.characters(exclude_categories=("C", "Z"))), st.integers(2, 50))
def test_what_is_safe_stays_as_it_is_and_long_texts_are_cut(text: str, most: int) -> None:
    assert shown(text) == text
    assert len(shown(text, max_characters=most)) == min(len(text), most)


def test_every_line_end_of_python_and_of_unicode_is_escaped() -> None:
    ends = "".join(chr(code) for code in range(0x11_0000) if len(f"a{chr(code)}b".splitlines()) > 1)
    assert len(shown(ends).splitlines()) == 1
    controls = [chr(code) for code in range(0x11_0000) if unicodedata.category(chr(code)) == "Cc"]
    assert is_safe(shown("".join(controls)))


# -- where it comes in -------------------------------------------------------------------------------------------------


@given(arriving)
@example("\x1b" * 60)
def test_a_message_between_the_ends_brings_nothing_in(text: str) -> None:
    """Not even one that was written by hand, without our own classes at its sender."""
    tags: list[list[Any]] = [[3, text, text], [11, text, text], [7, "opener", text]]
    tags.append([10, "stop", [0, 0, 0, 0, 0], [[text, 1]]])
    for body in tags:
        message = codec.decode(msgspec.msgpack.encode([0, 0, 0, None, 0, body])).message
        assert is_safe("".join(texts_of(message)))
        envelope = Envelope(0, 0, 0, None, 0, message)
        assert codec.decode(codec.encode(envelope)) == envelope, "it stays within its bounds"


def texts_of(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from texts_of(getattr(value, name))


def test_the_longest_texts_still_fit_when_they_are_escaped() -> None:
    sent: list[AnyMessage] = [
        Refused(reason="\x1b" * 2000, field="\x1b" * 200),
        Failure(reason="\u202e" * 2000, field="\n" * 200),
        MoveRequest(Peer.OPENER, "\n" * 500),
        Finish(reason=FinishReason.STOP, counters=Counters(), documents=(DocumentShare("\n" * 200, 1),)),
    ]
    for message in sent:
        envelope = Envelope(0, 0, 0, None, 0, message)
        assert codec.decode(codec.encode(envelope)) == envelope


@given(arriving)
def test_a_message_of_the_fleet_brings_nothing_in(text: str) -> None:
    nonce = "0" * 32
    payloads: list[tuple[type[Any], dict[str, Any]]] = [
        (
            fleet.Reported,
            {"session": nonce, "observed": "", "applied": "", "error": text}
            | dict.fromkeys(("daemon_version", "model", "vocabulary", "certificate_serial"), text),
        ),
        (fleet.LinkReport, {"session": nonce, "sequence": 1, "placement_reason": text}),
        (fleet.CertificateResponse, {"nonce": nonce, "time": 1, "reason": text}),
    ]
    for kind, payload in payloads:
        assert is_safe("".join(texts_of(fleet.decode(json.dumps({"version": 1} | payload).encode(), kind))))


def test_a_name_with_a_line_end_after_it_is_no_name() -> None:
    with pytest.raises(PeerError):
        fleet.decode(json.dumps({"version": 1, "session": "0" * 32 + "\n", "event": "birth"}).encode(), fleet.Presence)


@given(hostile)
def test_a_document_s_name_brings_nothing_in(text: str) -> None:
    assert is_safe(FoundDocument(text, b"").name + SkippedDocument(text, "").name)


def test_a_replica_s_reason_does_not_reach_the_user_as_it_was_written() -> None:
    def refuse(peer: Peer, frame: bytes) -> list[bytes]:
        if peer is Peer.OPENER:
            return [frame]
        envelope = codec.decode(frame)
        head = [envelope.term, envelope.sequence, 0, None, 0]
        return [msgspec.msgpack.encode([*head, [3, FORGED, FORGED, None]])]

    pair = PeerPair(Question(), Schedule(), damage=refuse)
    pair.run()
    error = pair.closed[Peer.OPENER].error
    assert "forged" in error
    assert is_safe(error)


# -- where it goes out -------------------------------------------------------------------------------------------------


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[LogFormat], io.StringIO]]:
    """Sets up logging as a daemon does; returns what it writes."""
    before, level = logging.root.handlers[:], logging.root.level

    def set_up(form: LogFormat) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", written := io.StringIO())
        set_up_logging(LogSettings(format=form, level=LogLevel.DEBUG))
        return written

    yield set_up
    logging.root.handlers[:] = before
    logging.root.setLevel(level)


@pytest.mark.parametrize("form", LogFormat)
def test_a_log_record_is_one_line(log: Callable[[LogFormat], io.StringIO], form: LogFormat) -> None:
    written = log(form)
    logger = logging.getLogger("dragon_runtime.test")
    logger.warning("GET %s: %s", FORGED, PeerError(FORGED))
    logger.warning(FORGED)
    assert len(written.getvalue().splitlines()) == 2
    assert is_safe(written.getvalue(), allowed="\n")


@pytest.mark.parametrize("form", LogFormat)
def test_a_trace_forges_no_line(log: Callable[[LogFormat], io.StringIO], form: LogFormat) -> None:
    written = log(form)
    try:
        raise ValueError(FORGED)
    except ValueError:
        logging.getLogger("dragon_runtime.test").exception("it broke: %s", FORGED)
    first, *trace = written.getvalue().splitlines()
    assert "it broke" in first
    assert bool(trace) is (form is LogFormat.TEXT)
    assert all(line.startswith(TRACE_MARK) for line in trace)
    assert is_safe(written.getvalue(), allowed="\n")


ERRORS = [
    DragonError(FORGED),
    PeerError(FORGED, field=FORGED),
    errors.EngineError(FORGED),
    errors.StoreError(FORGED),
    errors.DocumentError(FORGED),
    errors.RetryableError(FORGED, retry_after_seconds=1.0),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_body_steers_nothing(error: DragonError) -> None:
    body = problem_of(error).body["error"]
    assert is_safe(str(body["message"]))
    problem = Problem(status=problem_of(error).status, message="", param=FORGED)
    assert is_safe(problem.body["error"]["param"])


async def test_an_answer_on_a_terminal_steers_nothing() -> None:
    class Device:
        async def ask(self, request: dict[str, Any]) -> Any:
            told = {"edge_share": 1.0, "is_degraded": False}
            yield {"choices": [{"delta": {"content": FORGED}, "finish_reason": None}], "dragon": told}
            yield {"choices": [{"delta": {}, "finish_reason": "stop"}], "dragon": {}}

    written = io.StringIO()
    console = Console(file=written, force_terminal=False)

    def on_text(piece: Text) -> None:
        console.print(piece, end="")

    answer = await ask(Device(), {}, on_text=on_text)  # type: ignore[arg-type]
    assert is_safe(written.getvalue(), allowed="\n")
    assert answer.text == FORGED, "JSON has the answer as it is"


def test_an_error_of_a_command_steers_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(BaseException, match="1"):
        command.fail(DragonError(FORGED))
    assert is_safe(capsys.readouterr().err, allowed="\n")
