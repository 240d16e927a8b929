"""Parameters of chat completions: nothing is ignored in silence, and every refusal names what it is about."""

import inspect
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import BadRequestError
from openai.resources.chat.completions import AsyncCompletions

from edge_daemon.api.schemas import ChatCompletionRequest
from tests.fakes.answers import ScriptedAnswers
from tests.fakes.served_api import ServedApi, served_api

MESSAGES: Any = [{"role": "user", "content": "Hi?"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
IMAGE = {"type": "image_url", "image_url": {"url": "https://pictures/a.png"}}
ABOUT_THE_CALL = {"self", "extra_headers", "extra_query", "extra_body", "timeout"}


@pytest.fixture
async def api() -> AsyncIterator[ServedApi]:
    async with served_api() as api:
        yield api


async def refusal_of(api: ServedApi, **options: Any) -> dict[str, Any]:
    """The error a request with these options is refused with."""
    create: Any = api.openai.chat.completions.create
    with pytest.raises(BadRequestError) as caught:
        await create(**{"model": "toy", "messages": MESSAGES, **options})
    body = caught.value.response.json()["error"]
    assert body["type"] == "invalid_request_error"
    return dict(body)


UNSUPPORTED: dict[str, Any] = {
    "n": 2,
    "tools": [TOOL],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "functions": [{"name": "f"}],
    "function_call": "auto",
    "response_format": {"type": "json_object"},
    "logit_bias": {"50": -100},
    "presence_penalty": 0.5,
    "frequency_penalty": -0.5,
    "modalities": ["text", "audio"],
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "reasoning_effort": "low",
    "verbosity": "low",
    "web_search_options": {},
    "service_tier": "flex",
    "store": True,
    "metadata": {"a": "b"},
    "moderation": {"model": "m"},
    "prompt_cache_options": {"mode": "explicit"},
}
NEUTRAL: dict[str, Any] = {
    "n": 1,
    "tools": [],
    "tool_choice": "none",
    "functions": [],
    "function_call": "none",
    "response_format": {"type": "text"},
    "logit_bias": {},
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "modalities": ["text"],
    "reasoning_effort": "none",
    "service_tier": "auto",
    "store": False,
    "metadata": {},
    "logprobs": False,
    "user": "someone",
    "safety_identifier": "someone",
    "prompt_cache_key": "key",
    "prompt_cache_retention": "24h",
}


async def test_what_is_not_supported_is_refused_by_name(api: ServedApi) -> None:
    for name, value in UNSUPPORTED.items():
        error = await refusal_of(api, **{name: value})
        assert (error["param"], error["code"]) == (name, "unsupported_parameter"), name
        assert error["message"].startswith(f"{name}: this is not supported")


async def test_what_changes_nothing_is_accepted(api: ServedApi) -> None:
    create: Any = api.openai.chat.completions.create
    await create(model="toy", messages=MESSAGES, **NEUTRAL)
    nothing = dict.fromkeys({*UNSUPPORTED, *NEUTRAL, "temperature", "top_p", "seed", "max_tokens", "stop", "stream"})
    await create(model="toy", messages=MESSAGES, extra_body=nothing)


def test_every_parameter_of_the_official_client_is_known() -> None:
    offered = set(inspect.signature(AsyncCompletions.create).parameters) - ABOUT_THE_CALL
    assert offered <= set(ChatCompletionRequest.model_fields)


BAD_VALUES: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": -0.1}, "temperature", "greater than or equal to 0"),
    ({"temperature": 2.1}, "temperature", "less than or equal to 2"),
    ({"temperature": "hot"}, "temperature", "valid number"),
    ({"temperature": True}, "temperature", "valid number"),
    ({"top_p": 0}, "top_p", "greater than 0"),
    ({"top_p": 1.5}, "top_p", "less than or equal to 1"),
    ({"seed": 2**64}, "seed", str(2**64 - 1)),
    ({"seed": 1.5}, "seed", "valid integer"),
    ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
    ({"max_tokens": 5, "max_completion_tokens": 6}, "max_completion_tokens", "max_tokens"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
    ({"stop": ""}, "stop[0]", "at least 1 character"),
    ({"stop": ["a", 3]}, "stop[1]", "valid string"),
    ({"top_logprobs": 3}, "top_logprobs", "logprobs"),
    ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "stream"),
    ({"messages": []}, "messages", "at least 1 item"),
    ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content", "'image_url'"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages[0].role", "'developer'"),
    ({"messages": [*MESSAGES, {"role": "assistant", "content": "I"}]}, "messages", "assistant"),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [TOOL]}, *MESSAGES]},
        "messages[0].tool_calls",
        "not supported",
    ),
    ({"extra_body": {"top_k": 5}}, "top_k", "there is no such parameter"),
    ({"extra_body": {"dragon": {"topk": 5}}}, "dragon.topk", "there is no such parameter"),
    ({"extra_body": {"dragon": {"mode": "cloud_only"}}}, "dragon.mode", "'edge_only'"),
]
"""Options, the parameter they are refused for, and part of what is told."""


async def test_a_bad_value_is_refused_by_name(api: ServedApi) -> None:
    for options, param, told in BAD_VALUES:
        error = await refusal_of(api, **options)
        assert error["param"] == param
        assert error["message"].startswith(f"{param}: ")
        assert told in error["message"]


async def test_several_mistakes_are_told_at_once(api: ServedApi) -> None:
    error = await refusal_of(api, temperature=9, n=3)
    assert "n: this is not supported" in error["message"]
    assert "temperature: " in error["message"]


NO_REQUESTS = [
    (b'{"model": "toy", "messages": [', "not JSON"),
    (b"", "must be a JSON object"),
    (b"[1, 2]", "must be a JSON object"),
    (b'"text"', "must be a JSON object"),
    (b'{"model": "\xff"}', "parsing the body"),
    (b"[" * 200_000, "parsing the body"),
    (b'{"model": "toy", "messages": [{"role": "user", "content": "\\ud800"}]}', "messages[0].content"),
    (b'{"model": "toy", "messages": [{"role": "user", "content": "x"}], "temperature": NaN}', "finite"),
    (b'{"messages": [{"role": "user", "content": "x"}]}', "model: Field required"),
]


async def test_a_body_that_is_no_request_is_refused(api: ServedApi) -> None:
    headers = {"Content-Type": "application/json"}
    for content, told in NO_REQUESTS:
        response = await api.http.post("/v1/chat/completions", content=content, headers=headers)
        assert response.status_code == 400
        assert told in response.json()["error"]["message"]


async def test_json_must_be_called_json(api: ServedApi) -> None:
    body = json.dumps({"model": "toy", "messages": MESSAGES})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl sends when it is not told
    response = await api.http.post("/v1/chat/completions", content=body, headers=headers)
    assert response.status_code == 400
    assert "Content-Type: application/json" in response.json()["error"]["message"]


async def test_a_drawn_seed_survives_json_and_differs_each_time() -> None:
    answers = ScriptedAnswers()
    async with served_api(answers) as api:
        for _ in range(8):
            await api.openai.chat.completions.create(model="toy", messages=MESSAGES)
    seeds = {request.seed for request in answers.requests}
    assert len(seeds) == 8
    assert all(int(float(seed)) == seed for seed in seeds)
