"""Errors on Triton's wire: the message of a Triton error is JSON, and stands for an error of ours (docs/triton.md)."""

import msgspec

from dragon_core.errors import (
    CapacityError,
    DragonError,
    EngineError,
    EngineLostError,
    ModelError,
    OurError,
    PromptTooLongError,
    RetryableError,
)


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error on the wire, as JSON: `kind` is the name of a class of `dragon_core.errors`."""

    kind: str
    message: str
    requested: int | None = None
    available: int | None = None
    retry_after_seconds: float | None = None


_KINDS = {kind.__name__: kind for kind in (OurError, EngineError, ModelError)}


def failure_text(error: DragonError) -> str:
    """The message of a Triton error."""
    kind = next((name for name, known in _KINDS.items() if type(error) is known), EngineError.__name__)
    failure = Failure(kind=kind, message=str(error))
    match error:
        case CapacityError(requested=requested, available=available, retry_after_seconds=seconds):
            failure = Failure(
                kind="CapacityError",
                message=str(error),
                requested=requested,
                available=available,
                retry_after_seconds=seconds,
            )
        case PromptTooLongError(num_tokens=requested, max_tokens=available):
            failure = Failure(kind="PromptTooLongError", message=str(error), requested=requested, available=available)
        case RetryableError(retry_after_seconds=seconds):
            failure = Failure(kind="RetryableError", message=str(error), retry_after_seconds=seconds)
    return msgspec.json.encode(failure).decode()


def failure_of(said: str) -> DragonError:
    """The error that a Triton error's message stands for; Triton's own are an engine that cannot be reached now."""
    try:
        failure = msgspec.json.decode(said, type=Failure)
    except msgspec.MsgspecError:
        return EngineLostError(f"Triton: {said}")
    if failure.requested is not None and failure.available is not None:
        if failure.kind == "PromptTooLongError":
            return PromptTooLongError(num_tokens=failure.requested, max_tokens=failure.available)
        return CapacityError(
            failure.message,
            requested=failure.requested,
            available=failure.available,
            retry_after_seconds=failure.retry_after_seconds or 1.0,
        )
    if failure.retry_after_seconds is not None:
        return RetryableError(failure.message, retry_after_seconds=failure.retry_after_seconds)
    return _KINDS.get(failure.kind, EngineError)(failure.message)
