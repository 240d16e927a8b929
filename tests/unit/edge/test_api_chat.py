"""Chat completions as OpenAI's own client sees them, over HTTP, with a scripted answer behind them."""

import asyncio
import itertools
import json
import math
from typing import Any

import httpx
import pytest
from openai import APIStatusError, BadRequestError, NotFoundError, OpenAI

from dragon_core.errors import (
    CapacityError,
    EngineError,
    ModelError,
    PeerError,
    PromptTooLongError,
    RetryableError,
    StoreError,
)
from dragon_runtime.answering.summary import DragonSummary
from edge_daemon.answers import AnswerMode, AnswerRequest, ConversationError
from tests.fakes.answers import Item, ScriptedAnswers, hello, summary, token
from tests.fakes.served_api import ServedApi, served_api

DEADLINE = 20
MESSAGES: Any = [{"role": "user", "content": "Hi?"}]


async def chunks_of(api: ServedApi, **options: Any) -> list[dict[str, Any]]:
    """Every chunk of a streamed completion, as the client parsed it."""
    create: Any = api.openai.chat.completions.create
    return [chunk.model_dump() async for chunk in await create(model="toy", messages=MESSAGES, stream=True, **options)]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


async def test_a_whole_answer_has_text_usage_and_the_dragon_object() -> None:
    async with served_api() as api:
        completion = await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
    choice = completion.choices[0]
    assert (choice.message.role, choice.message.content) == ("assistant", "Hello there.")
    assert (choice.finish_reason, choice.logprobs, completion.model) == ("stop", None, "toy")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (7, 3)
    assert completion.usage.total_tokens == 10
    assert DragonSummary.model_validate(completion.model_dump()["dragon"]) == summary().dragon


async def test_a_streamed_answer_comes_in_pieces_that_tell_whose_they_are() -> None:
    script: list[Item] = [token(b"Hello"), token(b" you", is_degraded=True), summary(2, finish_reason="length")]
    async with served_api(ScriptedAnswers(script)) as api:
        first, *pieces, last = await chunks_of(api)
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == ["Hello", " you"]
    assert pieces[0]["dragon"] == {"edge_share": 0.25, "is_degraded": False}
    assert pieces[1]["dragon"] == {"edge_share": None, "is_degraded": True}
    assert last["choices"][0]["finish_reason"] == "length"
    assert DragonSummary.model_validate(last["dragon"]).num_tokens == 2
    assert len({chunk["id"] for chunk in (first, *pieces, last)}) == 1


async def test_usage_is_streamed_when_it_is_asked_for() -> None:
    async with served_api() as api:
        *before, last = await chunks_of(api, stream_options={"include_usage": True})
        assert last["choices"] == []
        assert last["usage"]["total_tokens"] == 10
        assert all(chunk["usage"] is None for chunk in before)
        assert all("usage" not in chunk or chunk["usage"] is None for chunk in await chunks_of(api))


async def test_a_character_split_over_tokens_is_shown_whole() -> None:
    script: list[Item] = [token(b"\xf0\x9f"), token(b"\x90\x89 \xc3"), token(b"\xa9"), token(b"\xe2\x82"), summary(4)]
    async with served_api(ScriptedAnswers(script)) as api:
        chunks = await chunks_of(api, logprobs=True)
        whole = await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
    contents = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[1:-1]]
    assert contents == ["\N{DRAGON} ", "é", "\N{REPLACEMENT CHARACTER}"]
    assert whole.choices[0].message.content == "".join(filter(None, contents))
    # Every token stands with the piece that its text came in.
    assert [len(chunk["choices"][0]["logprobs"]["content"]) for chunk in chunks[1:-1]] == [2, 1, 1]


async def test_logprobs_carry_bytes_and_likely_tokens() -> None:
    script: list[Item] = [
        token(b"Yes"),
        token(b"\xc3", shown=b""),
        token(b"\xa9", shown=b"\xc3\xa9", is_degraded=True),
        summary(),
    ]
    answers = ScriptedAnswers(script)
    async with served_api(answers) as api:
        whole = await api.openai.chat.completions.create(model="toy", messages=MESSAGES, logprobs=True, top_logprobs=2)
        streamed = await chunks_of(api, logprobs=True)
    assert whole.choices[0].logprobs is not None
    entries = whole.choices[0].logprobs.content
    assert entries is not None
    assert [entry.token for entry in entries] == ["Yes", "\N{REPLACEMENT CHARACTER}", "\N{REPLACEMENT CHARACTER}"]
    assert [bytes(entry.bytes or ()) for entry in entries] == [b"Yes", b"\xc3", b"\xa9"]
    assert [entry.logprob for entry in entries] == [-0.5, -0.5, None]
    assert [likely.token for likely in entries[0].top_logprobs] == ["Yes", " x"]
    assert sum(len(chunk["choices"][0]["logprobs"]["content"]) for chunk in streamed[1:-1]) == 3
    assert [request.num_top_logprobs for request in answers.requests] == [2, 0]


async def test_parameters_reach_the_answer() -> None:
    answers = ScriptedAnswers()
    async with served_api(answers) as api:
        create = api.openai.chat.completions.create
        await create(model="toy", messages=MESSAGES)
        await create(model="toy", messages=MESSAGES, temperature=0, top_p=0.5, seed=-1, max_tokens=9, stop="END")
        await create(
            model="toy",
            messages=[
                {"role": "developer", "content": "Be brief."},
                {"role": "assistant", "content": "Well?"},
                {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            ],
            max_completion_tokens=5,
            stop=["x", "yz"],
            extra_body={"dragon": {"top_k": 3, "min_p": 0.1, "mode": "edge_only"}},
        )
    plain, sampled, ours = answers.requests
    assert isinstance(plain, AnswerRequest)
    assert (plain.max_tokens, plain.stop, plain.num_top_logprobs) == (512, (), None)
    assert (plain.sampling.temperature, plain.sampling.top_p, plain.mode) == (0.7, 1.0, AnswerMode.BOTH)
    assert (sampled.sampling.temperature, sampled.sampling.top_p, sampled.max_tokens) == (0, 0.5, 9)
    assert (sampled.seed, sampled.stop) == (2**64 - 1, ("END",))
    assert [(message.role, message.content) for message in ours.messages] == [
        ("system", "Be brief."),
        ("assistant", "Well?"),
        ("user", "ab"),
    ]
    assert (ours.sampling.top_k, ours.sampling.min_p, ours.mode) == (3, 0.1, AnswerMode.EDGE_ONLY)
    assert (ours.max_tokens, ours.stop) == (5, ("x", "yz"))


async def test_the_client_that_blocks_works_as_well() -> None:
    async with served_api() as api:

        def ask() -> tuple[str | None, list[str]]:
            with OpenAI(base_url=f"{api.url}/v1", api_key="none", max_retries=0) as client:
                whole = client.chat.completions.create(model="toy", messages=MESSAGES)
                stream = client.chat.completions.create(model="toy", messages=MESSAGES, stream=True)
                return whole.choices[0].message.content, [chunk.choices[0].delta.content or "" for chunk in stream]

        whole, pieces = await asyncio.to_thread(ask)
    assert whole == "".join(pieces) == "Hello there."


async def test_the_one_model_is_listed_and_another_is_not_found() -> None:
    async with served_api() as api:
        assert [model.id for model in (await api.openai.models.list()).data] == ["toy"]
        assert (await api.openai.models.retrieve("toy")).owned_by == "dragon"
        for ask in (
            api.openai.models.retrieve("gpt-4o"),
            api.openai.chat.completions.create(model="gpt-4o", messages=MESSAGES),
        ):
            with pytest.raises(NotFoundError, match="there is no model 'gpt-4o' here; the model is 'toy'") as caught:
                await ask
            assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PromptTooLongError(num_tokens=3000, max_tokens=2048), 400, "context_length_exceeded"),
        (ConversationError("turns must alternate"), 400, "bad_conversation"),
        (CapacityError("no sequences", requested=8, available=2, retry_after_seconds=2.5), 503, "capacity"),
        (RetryableError("not now", retry_after_seconds=0.1), 503, "try_again"),
        (StoreError("it is gone"), 503, "store_failed"),
        (EngineError("it was lost"), 500, "engine_failed"),
        (PeerError("refused by the other end"), 502, "peer_failed"),
        (ModelError("no such thing"), 500, "failed"),
    ],
)
async def test_what_fails_before_the_first_token_has_a_status_of_its_own(
    error: Exception, status: int, code: str
) -> None:
    answers = ScriptedAnswers([error])
    async with served_api(answers) as api:
        for refusal, is_stream in itertools.product((error, None), (False, True)):
            answers.refusal = refusal
            with pytest.raises(APIStatusError) as caught:
                await api.openai.chat.completions.create(model="toy", messages=MESSAGES, stream=is_stream)
            assert (caught.value.status_code, caught.value.code) == (status, code)
            assert str(error) in caught.value.message
            if isinstance(error, RetryableError):
                wait = caught.value.response.headers["retry-after"]
                assert int(wait) == max(1, math.ceil(error.retry_after_seconds))


async def test_what_fails_later_is_an_event_and_the_stream_does_not_look_complete() -> None:
    async with served_api(ScriptedAnswers([token(b"Hello"), EngineError("it was lost")])) as api:
        body = {"model": "toy", "messages": MESSAGES, "stream": True}
        response = await api.http.post("/v1/chat/completions", json=body)
    events = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert response.status_code == 200
    assert json.loads(events[-1])["error"] == {
        "message": "it was lost",
        "type": "server_error",
        "param": None,
        "code": "engine_failed",
    }
    assert "[DONE]" not in events
    async with served_api(ScriptedAnswers([token(b"Hello")])) as api:
        response = await api.http.post("/v1/chat/completions", json=body)
    assert "stopped without an end" in response.text
    assert "[DONE]" not in response.text


async def test_a_defect_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    scripts: tuple[list[Item], ...] = (
        [ZeroDivisionError("a secret")],
        [token(b"Hello"), ZeroDivisionError("a secret")],
    )
    for script in scripts:
        async with served_api(ScriptedAnswers(script)) as api:
            with pytest.raises(APIStatusError) as caught:
                await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
        assert (caught.value.status_code, caught.value.code) == (500, "internal_error")
        assert "secret" not in caught.value.message
    assert "a secret" in caplog.text


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_client_that_hangs_up_ends_its_answer(*, is_stream: bool) -> None:
    answers = ScriptedAnswers([token(b"Hello"), asyncio.Event(), summary()])
    body = {"model": "toy", "messages": MESSAGES, "stream": is_stream}
    async with served_api(answers) as api:
        if is_stream:
            async with api.http.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if "Hello" in line:
                        break
                assert answers.num_open == 1
        else:
            asking = asyncio.create_task(api.http.post("/v1/chat/completions", json=body))
            async with asyncio.timeout(DEADLINE):
                await answers.entered.wait()
            asking.cancel()
        async with asyncio.timeout(DEADLINE):
            await answers.left.wait()
        assert answers.num_open == 0
        answers.script = hello()
        after = await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
        assert after.choices[0].message.content == "Hello there."


async def test_many_answers_at_once_stay_apart() -> None:
    async with served_api() as api:
        asked = [api.openai.chat.completions.create(model="toy", messages=MESSAGES) for _ in range(20)]
        answered = await asyncio.gather(*asked)
    assert {completion.choices[0].message.content for completion in answered} == {"Hello there."}
    assert len({completion.id for completion in answered}) == 20


async def test_an_answer_without_text_ends_at_once() -> None:
    async with served_api(ScriptedAnswers([token(b"", shown=b""), summary(1)])) as api:
        assert text_of(await chunks_of(api)) == ""
        whole = await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
    assert whole.choices[0].message.content == ""


async def test_a_refusal_is_what_the_client_takes_for_a_bad_request() -> None:
    async with served_api() as api:
        with pytest.raises(BadRequestError):
            await api.openai.chat.completions.create(model="toy", messages=[])


async def test_answers_that_run_when_the_device_is_stopped_are_told_so() -> None:
    answers = ScriptedAnswers([token(b"Hello"), asyncio.Event(), summary()])
    body = {"model": "toy", "messages": MESSAGES}
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        async with served_api(answers) as api:
            url = f"{api.url}/v1/chat/completions"
            asked = [asyncio.create_task(client.post(url, json={**body, "stream": is_so})) for is_so in (False, True)]
            async with asyncio.timeout(DEADLINE):
                while answers.num_open < 2:
                    answers.entered.clear()
                    await answers.entered.wait()
        assert answers.num_open == 0, "nothing goes on when the scope has ended"
        whole, streamed = [await asking for asking in asked]
    assert (whole.status_code, whole.json()["error"]["code"]) == (503, "shutting_down")
    assert "the device is shutting down" in streamed.text
    assert "[DONE]" not in streamed.text
