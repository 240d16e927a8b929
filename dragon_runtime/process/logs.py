"""Logging of a daemon: lines for people, or one JSON object per line."""

import logging
import sys

from pythonjsonlogger.json import JsonFormatter

from dragon_runtime.redaction import redacted
from dragon_runtime.settings.groups import LogFormat, LogSettings


def without_secrets(record: logging.LogRecord) -> bool:
    """A filter of handlers: nothing that may be secret is written, in a trace neither."""
    record.msg, record.args = redacted(record.getMessage()), None
    if record.exc_info:
        record.exc_text, record.exc_info = redacted(logging.Formatter().formatException(record.exc_info)), None
    return True


def set_up_logging(settings: LogSettings) -> None:
    """Log to standard error as the settings say; replaces what was set up before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(without_secrets)
    text = "%(asctime)s %(levelname)s %(name)s %(message)s"
    handler.setFormatter(JsonFormatter(text) if settings.format is LogFormat.JSON else logging.Formatter(text))
    logging.basicConfig(level=settings.level.value.upper(), handlers=[handler], force=True)
    for chatty in ("pymilvus", "milvus_lite", "httpx", "httpcore", "mqtt", "faiss"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # The embedded store does not have every method its client tries; the client goes on without.
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
