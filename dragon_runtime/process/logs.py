"""Logging of a daemon: lines for people, or one JSON object per line. Whatever is logged, a record is one line.

Below it stand the lines of a trace, if it has one, each with a mark before it.
"""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from dragon_core.errors import shown, shown_lines
from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import LogFormat, LogSettings

MAX_RECORD_CHARACTERS = 16_000
TRACE_MARK = "  | "


class SafeToWrite(logging.Filter):
    """Makes every record safe to show before it is formatted: no secret, and one line whatever others wrote."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let it pass, changed."""
        record.msg, record.args = shown(redacted(record.getMessage()), max_characters=MAX_RECORD_CHARACTERS), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None  # else a formatter would write the trace itself
        if record.exc_text:
            lines = shown_lines(redacted(record.exc_text)).split("\n")
            record.exc_text = "\n".join(line if line.startswith(TRACE_MARK) else TRACE_MARK + line for line in lines)
        return True


def set_up_logging(settings: LogSettings) -> None:
    """Log to standard error as the settings say; replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(SafeToWrite())
    text = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(JsonFormatter(text) if settings.format is LogFormat.JSON else logging.Formatter(text))
    logging.basicConfig(level=settings.level.value.upper(), handlers=[handler], force=True)
    for chatty in ("pymilvus", "milvus_lite", "httpx", "httpcore", "mqtt", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The embedded store does not have every method its client tries; the client goes on without.
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
