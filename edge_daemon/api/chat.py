"""POST /v1/chat/completions and GET /v1/models, as OpenAI's clients expect them."""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from dragon_core.errors import DragonError, EngineError
from dragon_runtime.process.tasks import end_after_cleanup
from edge_daemon.answers import AnswerRequest, AnswerService, AnswerSummary, AnswerToken, RequestDefaults
from edge_daemon.api.completion import Body, Completion, Piece, Pieces
from edge_daemon.api.errors import ApiError, Problem, WatchedSend, problem_of
from edge_daemon.api.schemas import ChatCompletionRequest

logger = logging.getLogger(__name__)

STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
DONE = b"data: [DONE]\n\n"
STOPPING = Problem(
    status=HTTPStatus.SERVICE_UNAVAILABLE,
    message="the device is shutting down: ask again after its restart",
    code="shutting_down",
    headers={"Retry-After": "5"},
)


def chat_router(answers: AnswerService, defaults: Callable[[], RequestDefaults]) -> APIRouter:
    """Routes of chat completions and models; `defaults` is asked at every request."""
    router = APIRouter(prefix="/v1", tags=["chat"])
    model = {"id": answers.model_name, "object": "model", "created": int(time.time()), "owned_by": "dragon"}

    def require_model(name: str) -> None:
        if name != answers.model_name:
            message = f"there is no model {name!r} here; the model is {answers.model_name!r}"
            raise ApiError(HTTPStatus.NOT_FOUND, message, code="model_not_found", param="model")

    @router.post("/chat/completions", response_class=Response)
    async def chat_completions(body: ChatCompletionRequest) -> Response:
        """Answer a conversation from the documents of both ends."""
        require_model(body.model)
        completion = Completion(
            completion_id=f"chatcmpl-{secrets.token_hex(12)}",
            created=int(time.time()),
            model=answers.model_name,
            has_logprobs=bool(body.logprobs),
            includes_usage=body.includes_usage,
        )
        request = body.to_answer_request(defaults())
        return AnswerResponse(
            Writer(answers=answers, request=request, completion=completion), is_stream=bool(body.stream)
        )

    @router.get("/models")
    async def list_models() -> Body:
        """The one model that answers."""
        return {"object": "list", "data": [model]}

    @router.get("/models/{name:path}")
    async def get_model(name: str) -> Body:
        """That model by its name."""
        require_model(name)
        return model

    return router


class AnswerResponse(Response):
    """Writes one answer; when the client goes away it is cancelled, which frees what it held."""

    def __init__(self, writer: "Writer", *, is_stream: bool) -> None:
        super().__init__()
        self._writer = writer
        self._is_stream = is_stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_stopped = False
        watched = WatchedSend(send)
        write = self._writer.stream(watched) if self._is_stream else self._writer.whole(scope, receive, watched)
        work = asyncio.create_task(write, name="write answer")
        gone = asyncio.create_task(_client_gone(receive), name="watch client")
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            is_stopped = True  # the server is going away and has waited long enough
        finally:
            await end_after_cleanup([work, gone])
        if is_stopped and watched.is_started:
            await _send_event(send, STOPPING.body)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif is_stopped:
            await STOPPING.response()(scope, receive, send)
        elif work.cancelled():
            logger.info("the client went away before its answer ended")
        else:
            work.result()


async def _client_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Turns the tokens of one answer into the bodies of one completion."""

    answers: AnswerService
    request: AnswerRequest
    completion: Completion

    async def whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One JSON body at the end."""
        pieces: list[Piece] = []
        async with self.answers.answer(self.request) as items, contextlib.aclosing(_pieces(items)) as found:
            async for item in found:
                if isinstance(item, AnswerSummary):
                    break
                pieces.append(item)
            else:
                raise EngineError("the answer stopped without an end")
        await JSONResponse(self.completion.whole(pieces, item))(scope, receive, send)

    async def stream(self, send: Send) -> None:
        """Server-sent events. What fails before the first token has a status of its own, later it is an event."""
        async with self.answers.answer(self.request) as items, contextlib.aclosing(_pieces(items)) as found:
            first = await anext(found, None)
            await send({"type": "http.response.start", "status": HTTPStatus.OK, "headers": STREAM_HEADERS})
            await _send_event(send, self.completion.first_chunk())
            try:
                await self._send_all(send, first, found)
            except DragonError as error:
                logger.warning("an answer broke off: %s: %s", type(error).__name__, error)
                await _send_event(send, problem_of(error).body)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(
        self, send: Send, first: Piece | AnswerSummary | None, rest: AsyncIterator[Piece | AnswerSummary]
    ) -> None:
        item = first
        while isinstance(item, Piece):
            await _send_event(send, self.completion.text_chunk(item))
            item = await anext(rest, None)
        if item is None:
            raise EngineError("the answer stopped without an end")
        await _send_event(send, self.completion.last_chunk(item))
        if self.completion.includes_usage:
            await _send_event(send, self.completion.usage_chunk(item))
        await send({"type": "http.response.body", "body": DONE, "more_body": True})


async def _pieces(items: AsyncIterator[AnswerToken | AnswerSummary]) -> AsyncGenerator[Piece | AnswerSummary, None]:
    """Whole characters, then the summary."""
    pieces = Pieces()
    async for item in items:
        if isinstance(item, AnswerSummary):
            left = pieces.finish()
            if left is not None:
                yield left
            yield item
            return
        piece = pieces.push(item)
        if piece is not None:
            yield piece


async def _send_event(send: Send, body: Body) -> None:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True})
