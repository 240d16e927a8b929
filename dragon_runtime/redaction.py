"""What may be secret in a text is left out before anybody reads it: the one rule for messages, logs and diagnoses.

Left out are user and password of an address, its query and fragment (a signature may be there), bearer tokens and join
tokens. A secret that is the path of an address, or stands alone, has no form to be known by.
"""

import re
from typing import Any

from dragon_core.fleet.join_token import PREFIX

LEFT_OUT = "***"
_ADDRESS = re.compile(r"://(\S*)")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]*\]|[^:]*)(:[0-9]*)?")
_AUTHORITY_END = re.compile(r"[/?#]")
_QUERY = re.compile(r"[?#]")
_MARKS = "'\")>,.;:"
# user:password@host; what follows the name of an image is no host.
_LOGIN = re.compile(r"(?<!\S)(['\"(]*+)[^\s/@:]++:(?:[^\s/@]*+@)++(?!sha256:)(?=\S)")
_CREDENTIALS = re.compile(r"\b((?:bearer|basic)\s+)[\w.~+/=-]{16,}", re.IGNORECASE)
_JOIN_TOKEN = re.compile(re.escape(PREFIX) + r"[\w=-]+")


def redacted(text: str) -> str:
    """The text without what may be secret in it; without such a thing it stays as it is."""
    text = _ADDRESS.sub(lambda found: f"://{_bare(found[1])}", text)
    text = _LOGIN.sub(rf"\1{LEFT_OUT}@", text)
    text = _CREDENTIALS.sub(rf"\1{LEFT_OUT}", text)
    return _JOIN_TOKEN.sub(PREFIX + LEFT_OUT, text)


def all_redacted(value: Any) -> Any:
    """The same for every text in a tree of JSON."""
    match value:
        case dict():
            return {redacted(str(key)): all_redacted(inner) for key, inner in value.items()}
        case list() | tuple():
            return [all_redacted(inner) for inner in value]
        case str():
            return redacted(value)
        case _:
            return value


def _bare(rest: str) -> str:
    """What follows `://`, without login and query. The marks of the sentence around it stay."""
    rest = _without_login(rest)
    marks = rest[len(rest.rstrip(_MARKS)) :]
    path = _QUERY.split(rest, maxsplit=1)[0]
    shown = "://".join(_without_login(part) for part in path.split("://"))
    return shown if path == rest else shown + marks


def _without_login(rest: str) -> str:
    head = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    if "@" in head:
        rest = rest[head.rindex("@") + 1 :]
        head = _AUTHORITY_END.split(rest, maxsplit=1)[0]
    # A password with a slash in it: what looks like the host ends in the middle of it.
    return rest if _HOST.fullmatch(head) else rest.rpartition("@")[2]
