"""Where the answers to a request go, whoever serves it."""

from typing import Protocol

from dragon_runtime.engines.triton.tensors import Tensors


class Reply(Protocol):
    """Exactly one of `finish`, `fail`, and `send` with `is_final` ends it."""

    def send(self, tensors: Tensors, *, is_final: bool = False) -> None: ...

    def finish(self) -> None:
        """There is nothing (more) to say."""

    def fail(self, message: str) -> None: ...

    @property
    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
