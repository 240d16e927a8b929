"""Answers as whole sessions on the device: a real session and driver, an engine that writes a given text."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pytest
from openai import APIStatusError

from dragon_core import codec
from dragon_core.errors import CapacityError, EngineError, PromptTooLongError
from dragon_core.link import LinkEstimate
from dragon_core.messages import Accepted, AnyMessage, ChatMessage, Finish, FinishReason, Open, Ready, Target
from dragon_core.types import Sampling, WeightingRule
from dragon_core.wire import Wire
from dragon_runtime.answering.metrics import PeerMetrics
from dragon_runtime.answering.summary import DragonSummary
from dragon_runtime.channel.memory import MemoryChannel, memory_channel_pair
from dragon_runtime.settings import PeerSettings
from dragon_runtime.settings.groups import WeightingSettings
from edge_daemon.answers import AnswerMode, AnswerRequest, AnswerSummary, AnswerToken, ConversationError
from edge_daemon.session_answers import SessionAnswers
from tests.fakes.answers import ALL_GOOD
from tests.fakes.engine import WritingEngine, preparation_of
from tests.fakes.served_api import served_api

DEADLINE = 20
ALONE = {"dragon": {"mode": "edge_only"}}
Wanted = TypeVar("Wanted")
MESSAGES: Any = [{"role": "user", "content": "Count."}]


class Device:
    """Answers of a device whose engine writes one text; `theirs` is the other end of the last answer's channel."""

    def __init__(self, engine: WritingEngine | None = None) -> None:
        self.engine = engine or WritingEngine()
        self.metrics = PeerMetrics("dragon_edge")
        self.theirs: MemoryChannel | None = None
        self.num_degraded_answers = 0
        self.answers = SessionAnswers(
            preparation_of(self.engine),
            PeerSettings(),
            model_name="toy",
            create_channel=self._create_channel,
            name_of_document=self._name_of,
            readiness=lambda: ALL_GOOD,
            metrics=self.metrics,
            on_degraded=self._on_degraded,
        )

    def _on_degraded(self) -> None:
        self.num_degraded_answers += 1

    def _create_channel(self, session: str) -> MemoryChannel:
        ours, self.theirs = memory_channel_pair()
        return ours

    async def _name_of(self, document_id: str) -> str | None:
        return {"d1": "note.txt"}.get(document_id)

    def count(self, reason: str) -> float:
        """Answers that ended for this reason."""
        return self.metrics.registry.get_sample_value("dragon_edge_answers_total", {"reason": reason}) or 0.0


def request(**options: Any) -> AnswerRequest:
    given: dict[str, Any] = {
        "messages": (ChatMessage("user", "Count."),),
        "sampling": Sampling(temperature=0.0),
        "seed": 3,
        "max_tokens": 50,
        "mode": AnswerMode.EDGE_ONLY,
        **options,
    }
    return AnswerRequest(**given)


async def given(items: AsyncIterator[AnswerToken | AnswerSummary]) -> tuple[bytes, AnswerSummary]:
    """(all bytes that may be shown, the summary)."""
    shown = b""
    async for item in items:
        if isinstance(item, AnswerSummary):
            return shown, item
        shown += item.text_bytes
    raise AssertionError("an answer without an end")


async def test_a_device_answers_alone() -> None:
    device = Device()
    async with device.answers.answer(request()) as items:
        text, summary = await given(items)
    assert text == b"".join(device.engine.tokens)
    assert (summary.finish_reason, summary.num_prompt_tokens) == ("stop", len("user: Count.\nassistant:"))
    assert DragonSummary.model_validate_json(summary.dragon.model_dump_json()) == summary.dragon
    assert (summary.dragon.mode, summary.dragon.num_tokens, summary.dragon.bytes.edge_to_cloud) == ("edge_only", 9, 0)
    assert device.engine.num_free == device.engine.num_sequences
    assert device.count("stop") == 1


async def test_an_answer_that_missed_the_cloud_has_it_looked_for() -> None:
    device = Device()
    async with device.answers.answer(request()) as items:
        await given(items)
    assert device.num_degraded_answers == 0, "nobody was asked, so nobody was missed"
    async with device.answers.answer(request(mode=AnswerMode.BOTH)) as items:
        _, summary = await given(items)
    assert summary.dragon.degraded_tokens == summary.dragon.num_tokens
    assert device.num_degraded_answers == 1


async def test_new_settings_hold_for_the_next_answer() -> None:
    device = Device()
    weighting = WeightingSettings(rule=WeightingRule.EQUAL)
    device.answers.configure(PeerSettings(window=7, nucleus=0.5, weighting=weighting))
    async with device.answers.answer(request(mode=AnswerMode.BOTH)) as items:
        _, summary = await given(items)
    assert device.theirs is not None
    frame = await device.theirs.receive()
    assert isinstance(frame, bytes)
    opening = codec.decode(frame).message
    assert isinstance(opening, Open)
    assert (opening.window, opening.fingerprint.nucleus) == (7, 0.5)
    assert opening.fingerprint.weighting_rule is summary.dragon.weighting is WeightingRule.EQUAL


async def test_the_longest_answer_ends_by_its_length() -> None:
    device = Device()
    async with device.answers.answer(request(max_tokens=2)) as items:
        text, summary = await given(items)
    assert (text, summary.finish_reason, summary.dragon.num_tokens) == (b"One two", "length", 2)


STOPS: list[tuple[Any, str]] = [
    (" four", "One two three"),
    ("ree fo", "One two th"),
    ("One", ""),
    ("two three four fiv", "One "),
    (["seven", " five"], "One two three four"),
    ("nine", "One two three four five six seven eight"),
    ("eight!", "One two three four five six seven eight"),
]


async def test_no_part_of_a_stop_text_is_ever_shown() -> None:
    async with served_api(Device().answers) as api:
        create: Any = api.openai.chat.completions.create
        for stop, shown in STOPS:
            options = {"model": "toy", "messages": MESSAGES, "stop": stop, "extra_body": ALONE}
            whole = await create(**options)
            so_far = ""
            async for chunk in await create(stream=True, **options):
                so_far += chunk.choices[0].delta.content or ""
                assert shown.startswith(so_far), f"{so_far!r} was shown"
            assert whole.choices[0].message.content == so_far == shown
            assert whole.choices[0].finish_reason == "stop"


async def test_characters_split_over_tokens_reach_the_client_whole() -> None:
    dragon = "\N{DRAGON}".encode()
    device = Device(WritingEngine(tokens=(b"a ", dragon[:1], dragon[1:3], dragon[3:] + b" \xc3", b"\xa9\xff", b"!")))
    async with served_api(device.answers) as api:
        create: Any = api.openai.chat.completions.create
        options = {"model": "toy", "messages": MESSAGES, "extra_body": ALONE}
        pieces = [chunk.choices[0].delta.content async for chunk in await create(stream=True, **options)]
    assert "".join(filter(None, pieces)) == "a \N{DRAGON} é\N{REPLACEMENT CHARACTER}!"
    assert all("\N{REPLACEMENT CHARACTER}" not in piece for piece in pieces[:-3] if piece)


async def test_leaving_early_frees_the_sequences_and_tells_the_other_end() -> None:
    device = Device()
    async with asyncio.timeout(DEADLINE):
        asking = asyncio.create_task(first_item(device, request(mode=AnswerMode.BOTH)))
        await device.engine.opened.wait()
        assert device.theirs is not None
        await accept(device.theirs)
        assert device.engine.num_free < device.engine.num_sequences
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert device.engine.num_free == device.engine.num_sequences
        assert device.count("cancelled") == 1
        assert device.metrics.registry.get_sample_value("dragon_edge_open_sessions") == 0
        finish = await message_of(device.theirs, Finish)
    assert finish.reason is FinishReason.CANCELLED


async def first_item(device: Device, asked: AnswerRequest) -> AnswerToken | AnswerSummary:
    async with device.answers.answer(asked) as items:
        return await anext(items)


async def message_of(theirs: MemoryChannel, kind: type[Wanted]) -> Wanted:
    """The next message of this kind that reaches the other end."""
    while True:
        frame = await theirs.receive()
        assert isinstance(frame, bytes)
        message = codec.decode(frame).message
        if isinstance(message, kind):
            return message


async def accept(theirs: MemoryChannel) -> Callable[[AnyMessage], None]:
    """Answer an Open as a replica does, and wait until that is understood; returns how more is sent."""
    await message_of(theirs, Open)
    wire = Wire(LinkEstimate())

    def send(message: AnyMessage) -> None:
        theirs.send(codec.encode(wire.seal(message, now=asyncio.get_running_loop().time())))

    send(Accepted(replica="r", prefill_deadline_seconds=5.0))
    await message_of(theirs, Ready)
    return send


BEYOND_VOCABULARY = Target(0, (10**6,), (None,))


@pytest.mark.parametrize("broken", [BEYOND_VOCABULARY, b"no MessagePack"])
async def test_what_the_other_end_breaks_is_its_fault(broken: AnyMessage | bytes) -> None:
    """Whatever the words of the reason are: these do not speak of the other end."""
    device = Device()
    async with asyncio.timeout(DEADLINE), served_api(device.answers) as api:
        asking = asyncio.ensure_future(api.openai.chat.completions.create(model="toy", messages=MESSAGES, max_tokens=5))
        await device.engine.opened.wait()
        assert device.theirs is not None
        send = await accept(device.theirs)
        if isinstance(broken, bytes):
            device.theirs.send(broken)
        else:
            send(Ready(num_contexts=1, constant_weight_level=0, decode_seconds=0.01))
            send(broken)
        with pytest.raises(APIStatusError) as caught:
            await asking
    assert (caught.value.status_code, caught.value.code) == (502, "peer_failed")
    assert "other end" not in caught.value.message


async def test_an_engine_that_is_lost_ends_the_answer_with_its_error() -> None:
    device = Device()
    device.engine.hold()
    async with asyncio.timeout(DEADLINE):
        asking = asyncio.create_task(first_item(device, request()))
        await device.engine.asked.wait()
        device.engine.sessions[0].fail()
        with pytest.raises(EngineError, match="was lost"):
            await asking
    assert device.engine.num_free == device.engine.num_sequences
    assert device.count("error") == 1


async def test_what_cannot_be_asked_is_refused_before_a_session_is_opened() -> None:
    device = Device(WritingEngine(context_length=100))
    told = "has 23 tokens and its answer may have 90, together 113; the context holds 100"
    with pytest.raises(PromptTooLongError, match=told):
        await first_item(device, request(max_tokens=90))
    picky = Device(WritingEngine(chat_template="{{ raise_exception('turns must alternate') }}"))
    with pytest.raises(ConversationError, match="turns must alternate"):
        await first_item(picky, request())
    assert device.theirs is picky.theirs is None


async def test_an_answer_that_finds_no_sequences_is_refused_with_both_numbers() -> None:
    device = Device(WritingEngine(num_sequences=3))
    with pytest.raises(CapacityError, match="4 of 3"):
        await first_item(device, request())
    assert device.engine.num_free == 3
