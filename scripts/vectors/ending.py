"""ending.json: tokens to the bytes that are shown after each, and why an answer ends."""

from collections.abc import Sequence

from dragon_core.session.ending import Ending
from dragon_core.types import Vocabulary
from vectors.cases import Case

TOKEN_BYTES = (b"", b"Hel", b"lo", b" END", b"EN", b"D", b"\xc3", b"\xa9", b"\xf0\x9f", b"\x9a\x82", b"\n", b"!", b"")
"""Token 0 ends an answer; token 12 is special and prints nothing."""


def ending_case(name: str, tokens: Sequence[int], max_tokens: int = 9, stop: tuple[str, ...] = ()) -> Case:
    vocabulary = Vocabulary(token_bytes=TOKEN_BYTES, special_ids=frozenset({0, 12}), end_ids=frozenset({0}))
    ending = Ending(vocabulary, max_tokens=max_tokens, stop=stop)
    shown = [ending.push(token).hex() for token in tokens]
    case = {"name": name, "max_tokens": max_tokens, "stop": stop, "tokens": tokens}
    return case | {"shown": shown, "reason": ending.reason}


def build() -> Case:
    return {
        "about": "token_bytes of a vocabulary with its end ids; cases: tokens to the bytes shown after each, and why "
        "it ended (null: it goes on)",
        "token_bytes": [token.hex() for token in TOKEN_BYTES],
        "end_ids": [0],
        "cases": [
            ending_case("an end token", (1, 2, 12, 0)),
            ending_case("the last token", (1, 2, 11), 3),
            ending_case("it goes on", (1, 2), stop=("lo!",)),
            ending_case("a stop string over several tokens", (1, 2, 4, 5), stop=("END",)),
            ending_case("a stop string that does not come", (1, 4, 4, 11), stop=("END",)),
            ending_case("a stop string inside a token", (1, 3), stop=("END",)),
            ending_case("the first of two stop strings", (2, 3), stop=("D", " E")),
            ending_case("a stop string with the last token", (1, 4, 5), 3, ("END",)),
            ending_case("an end token shows what was held back", (1, 4, 0), stop=("END",)),
            ending_case("the last token shows what was held back", (1, 4), 2, ("END",)),
            ending_case("a character over two tokens", (6, 7, 11)),
            ending_case("a character of four bytes", (8, 9, 2)),
            ending_case("a character cut off by another", (8, 11)),
            ending_case("a character that the end leaves unfinished", (2, 6, 0)),
            ending_case("a byte that begins nothing", (7, 11)),
            ending_case("a stop string that is no ASCII", (6, 7), stop=("é",)),
            ending_case("half a character and half a stop string", (4, 6, 11), stop=("N\u00e9!",)),
        ],
    }
