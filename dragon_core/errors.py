"""Every error of the project. The class says whose fault it is; the message says what to do next.

Nothing here formats for a terminal or for HTTP: composition roots do. But what others wrote comes in by `shown`.
"""

import enum

MAX_SHOWN_CHARACTERS = 2000
_UNSAFE = (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_SURROGATES = range(0xD800, 0xE000)
_ESCAPES = {code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" for code in (*_UNSAFE, 0xFEFF, *_SURROGATES)}
_LINES = {code: escape for code, escape in _ESCAPES.items() if chr(code) not in "\n\t"}


def shown(text: str, *, max_characters: int = MAX_SHOWN_CHARACTERS) -> str:
    """A text of somebody else as it may stand in a log, in an error, on a terminal: one line, of bounded length.

    What steers a terminal, ends a line or turns the direction of writing is escaped. What is safe stays as it is.
    """
    escaped = text[: max_characters + 1].translate(_ESCAPES)
    return escaped if len(escaped) <= max_characters else escaped[: max_characters - 1] + "…"


def shown_lines(text: str) -> str:
    """The same for a text that may have lines, of any length: an answer, a passage, a trace."""
    return text.translate(_LINES)


class DragonError(Exception):
    """Root of all errors raised on purpose."""


class OurError(DragonError):
    """This end asked for something impossible: a wrong setting, a missing file, a misuse of an interface."""


class PeerError(DragonError):
    """The other end broke the protocol: the session is refused or closed, nothing else is affected.

    `field` names the part of the message that did not fit. The message may quote what the other end sent.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(shown(message))
        self.field = shown(field)


class RetryableError(DragonError):
    """The same request may succeed later; `retry_after_seconds` is the delay to wait before it."""

    def __init__(self, message: str, *, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class CapacityError(RetryableError):
    """An open that does not fit: `requested` and `available` count the scarce thing, named in the message."""

    def __init__(self, message: str, *, requested: int, available: int, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.requested = requested
        self.available = available


class PromptTooLongError(OurError):
    """A prompt that no context can hold: both lengths in tokens."""

    def __init__(self, *, num_tokens: int, max_tokens: int) -> None:
        super().__init__(
            f"the prompt has {num_tokens} tokens, the context holds {max_tokens}: "
            "shorten the conversation or raise context_length"
        )
        self.num_tokens = num_tokens
        self.max_tokens = max_tokens


class EngineError(DragonError):
    """The language model failed under a session that had been opened correctly."""


class EngineLostError(EngineError, RetryableError):
    """The engine is elsewhere and cannot be reached now, or its process died; it may be back soon."""

    def __init__(self, message: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)


class ModelFault(enum.Enum):
    """What is wrong with a model file."""

    UNREADABLE = enum.auto()
    """It is missing, or no model that can be loaded."""
    OTHER_DIGEST = enum.auto()
    """It is another file than the one that is wanted."""


class ModelError(OurError):
    """A model file that is missing, damaged, or not what the deployment needs; says how to get the right one."""

    def __init__(self, message: str, *, fault: ModelFault = ModelFault.UNREADABLE) -> None:
        super().__init__(message)
        self.fault = fault


class StoreError(OurError):
    """The document store cannot do what was asked: locked, damaged, full."""


class StoreFullError(StoreError):
    """There is no room on the disk; nothing that was acknowledged is lost."""


class DocumentError(OurError):
    """A document that cannot be ingested: empty, too large, unreadable, of an unknown type."""


class SettingsError(OurError):
    """A setting that is unknown or has a bad value; the message has the full path of the key."""
