"""A second implementation of docs/protocol.md, written from the page alone: plain Python, nothing of dragon_core.

It computes and decodes; what an end does with a Resume is in `independent_session`. Distributions are dictionaries from
token id to probability.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

Distribution = dict[int, float]
TOKEN, COIN, DRAFT, ACCEPT, RESIDUAL = (
    0,
    2,
    {"opener": 3, "other": 4},
    {"opener": 5, "other": 6},
    {"opener": 7, "other": 8},
)


class RefusedError(Exception):
    """What the page refuses; `field` is the one it says is named."""

    def __init__(self, field: str) -> None:
        super().__init__(field)
        self.field = field


# Section 1: what is computed.


def lse(values: Sequence[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def log_softmax(logits: Sequence[float]) -> list[float]:
    total = lse(logits)
    return [logit - total for logit in logits]


def weigh(case: Mapping[str, Any]) -> tuple[list[float], list[list[float]]]:
    """w_c and the log-probabilities that are mixed, per context."""
    found, bare = [log_softmax(row) for row in case["logits"]], log_softmax(case["bare_logits"])
    tau, beta, gamma = case["tau"], case["beta"], case["gamma"]
    match case["rule"]:
        case "relevance":
            return [relevance / tau for relevance in case["relevances"]], found
        case "equal":
            return [-math.log(len(found))] * len(found), found
        case "evidence":
            return [beta * sum(math.exp(p) * (p - q) for p, q in zip(row, bare, strict=True)) for row in found], found
    weights, mixed = [], []
    for relevance, row in zip(case["relevances"], found, strict=True):
        least = max(row) + math.log(0.05)
        raised = [(1 + beta) * p - beta * q if p >= least else -math.inf for p, q in zip(row, bare, strict=True)]
        weights.append(gamma * math.log(max(relevance, 0.01)) + lse(raised))
        mixed.append([value - lse(raised) for value in raised])
    return weights, mixed


def sampled(log_probabilities: Sequence[float], sampling: Mapping[str, Any]) -> list[float]:
    if sampling["temperature"] == 0:
        return [math.exp(value) for value in log_probabilities]
    p = [math.exp(value) for value in log_softmax([value / sampling["temperature"] for value in log_probabilities])]
    order = sorted(range(len(p)), key=lambda token: (-p[token], token))
    kept = order[: sampling["top_k"]] if sampling["top_k"] else order
    if sampling["min_p"] > 0:
        kept = kept[: sum(value >= sampling["min_p"] * max(p) for value in p)]
    if sampling["top_p"] < 1:
        kept = prefix(kept, [p[token] / sum(p[at] for at in kept) for token in kept], sampling["top_p"])
    total = sum(p[token] for token in kept)
    return [p[token] / total if token in kept else 0.0 for token in range(len(p))]


def prefix(tokens: Sequence[int], masses: Sequence[float], limit: float) -> list[int]:
    """Up to and including the first token at which the sum is `limit`."""
    total = 0.0
    for at, mass in enumerate(masses):
        total += mass
        if total >= limit:
            return list(tokens[: at + 1])
    return list(tokens)


def peer_distribution(case: Mapping[str, Any]) -> tuple[list[float], float, list[float]]:
    """w_c, w_s and p_s before the cut."""
    weights, mixed = weigh(case)
    weight = lse(weights)
    rows = [sampled(row, case["sampling"]) for row in mixed]
    shares = [math.exp(w - weight) for w in weights]
    return (
        weights,
        weight,
        [sum(map(math.prod, zip(shares, column, strict=True))) for column in zip(*rows, strict=True)],
    )


# Section 2: published distributions.


def cut(p: Distribution, *, nucleus: float, max_tokens: int) -> tuple[list[int], list[int], int]:
    """ids, levels, dropped."""
    kept = sorted(p, key=lambda token: (-p[token], token))[:max_tokens]
    kept = [token for token in prefix(kept, [p[token] for token in kept], nucleus) if p[token] > 0]
    levels = {token: min(round(-math.log(p[token]) * 1024), 65_535) for token in kept}
    ids = sorted(kept, key=lambda token: (levels[token], token))
    mass = 0.0
    for token in kept:
        mass += p[token]
    return ids, [levels[token] for token in ids], min(math.ceil(max(0.0, 1 - mass) * 65_535 - 1e-6), 65_535)


def pack(ids: Sequence[int], levels: Sequence[int]) -> bytes:
    width = 2 if max(ids) < 65_536 else 4
    body = bytes([width]) + len(ids).to_bytes(2, "little") + b"".join(token.to_bytes(width, "little") for token in ids)
    for before, level in zip([0, *levels], levels, strict=False):
        step = level - before
        body += bytes([step]) if step < 255 else b"\xff" + step.to_bytes(2, "little")
    return body


def unpack(body: bytes, *, vocabulary_size: int, max_tokens: int) -> tuple[list[int], list[int]]:
    rest = list(body)

    def take(size: int) -> int:
        if len(rest) < size:
            raise RefusedError("distribution")
        taken, rest[:] = rest[:size], rest[size:]
        return int.from_bytes(taken, "little")

    width, num_tokens = take(1), take(2)
    if width not in {2, 4} or not 1 <= num_tokens <= max_tokens:
        raise RefusedError("distribution")
    ids, levels, level = [take(width) for _ in range(num_tokens)], [], 0
    for _ in ids:
        step = take(1)
        level += take(2) if step == 255 else step
        levels.append(level)
    is_sorted = sorted(zip(levels, ids, strict=True)) == list(zip(levels, ids, strict=True))
    if rest or level > 65_535 or max(ids) >= vocabulary_size or len(set(ids)) < len(ids) or not is_sorted:
        raise RefusedError("distribution")
    return ids, levels


def decoded(ids: Sequence[int], levels: Sequence[int]) -> Distribution:
    values = [math.exp(-level / 1024) for level in levels]
    return {token: value / math.fsum(values) for token, value in zip(ids, values, strict=True)}


# Section 3: mixing.


@dataclass(frozen=True, slots=True)
class Frame:
    """What a peer published at a position."""

    weight_level: int
    dropped: int
    p: Distribution


def shares(opener_level: int, other_level: int) -> dict[str, float]:
    top = max(opener_level, other_level) / 1024
    e = {"opener": math.exp(opener_level / 1024 - top), "other": math.exp(other_level / 1024 - top)}
    return {peer: value / (e["opener"] + e["other"]) for peer, value in e.items()}


def mix(frames: Mapping[str, Frame]) -> tuple[Distribution, Distribution]:
    """p~ and the opener's parts, by ascending id."""
    share = shares(frames["opener"].weight_level, frames["other"].weight_level)
    ids = sorted({*frames["opener"].p, *frames["other"].p})
    parts = {token: share["opener"] * frames["opener"].p.get(token, 0.0) for token in ids}
    return {token: parts[token] + share["other"] * frames["other"].p.get(token, 0.0) for token in ids}, parts


def detail(frames: Mapping[str, Frame], token: int, num_top: int) -> dict[str, Any]:
    p, parts = mix(frames)
    share = shares(frames["opener"].weight_level, frames["other"].weight_level)
    top = sorted((x for x in p if p[x] > 0), key=lambda x: (-p[x], x))[:num_top]
    return {
        "opener_share": round(1000 * parts[token] / p[token]),
        "logprob_level": max(0, round(-1024 * math.log(p[token]))),
        "dropped": min(65_535, math.ceil(sum(share[peer] * frames[peer].dropped for peer in frames))),
        "top": [{"token": x, "logprob": math.log(p[x])} for x in top],
    }


# Section 4: noise.


def splitmix(key: int, index: int) -> int:
    z = (key + 0x9E3779B97F4A7C15 * (index + 1)) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def uniform(seed: int, stream: int, position: int, index: int) -> float:
    word = splitmix(splitmix(splitmix(seed, stream), position), index)
    return min((float(word >> 11) + 0.5) * 2.0**-53, 1 - 2.0**-53)


def gumbel(seed: int, stream: int, position: int, index: int) -> float:
    return -math.log(-math.log(uniform(seed, stream, position, index)))


# Section 5: couplings.


@dataclass(frozen=True, slots=True)
class Coupling:
    """One answer's choice of tokens."""

    is_independent: bool
    seed: int
    temperature: float

    def best(self, p: Distribution, stream: int, position: int, num_best: int = 1) -> list[int]:
        def score(x: int) -> float:
            if self.temperature == 0:
                return p[x]
            return math.log(p[x]) + gumbel(self.seed, stream, position, x) if p[x] > 0 else -math.inf

        return sorted(p, key=lambda x: (-score(x), x))[:num_best]

    def guesses(self, peer: str, frame: Frame, position: int, num_guesses: int) -> list[int]:
        return self.best(frame.p, DRAFT[peer] if self.is_independent else TOKEN, position, num_guesses)

    def target(self, frames: Mapping[str, Frame], position: int) -> int:
        p, _ = mix(frames)
        if not self.is_independent or self.temperature == 0:
            return self.best(p, TOKEN, position)[0]
        peer = self.chosen(position)
        own = frames[peer].p
        draft = self.guesses(peer, frames[peer], position, 1)[0]
        if uniform(self.seed, ACCEPT[peer], position, 0) * own[draft] <= p[draft]:
            return draft
        residual = {x: p[x] - own.get(x, 0.0) for x in p if p[x] > own.get(x, 0.0)}
        return self.best(residual, RESIDUAL[peer], position)[0]

    def chosen(self, position: int) -> str:
        return "opener" if uniform(self.seed, COIN, position, 0) < 0.5 else "other"


def settle_early(share: float, p: Distribution) -> int | None:
    best, *others = sorted(p, key=lambda x: (-p[x], x))
    lead = p[best] - (p[others[0]] if others else 0.0)
    return best if share > 0.5 and share * lead - (1 - share) > 1e-9 else None


# Section 7: messages. A field is `name kind [least most] [= default]`; bounds are of the value or of its length.

ALIASES = {
    "u32": "int 0 4294967295",
    "u64": "int 0 18446744073709551615",
    "position": "int 0 1000000",
    "share": "int 0 1000",
    "mass": "int 0 65535",
    "weight": "int -10240000 10240000",
    "seconds": "real 0 86400",
    "name": "text 0 200",
    "stop": "text 1 128",
    "logprobs": "int 0 20",
    "peer": "opener/other",
}
LAYOUTS = {
    "Envelope": "term u32 | sequence u64 | sent_ms u64 | echo_ms u64? | hold_ms u32 | message Message",
    "1": "version u32 | fingerprint Fingerprint | messages [Turn] 1 1000 | temperature real 0 10 | top_k u32"
    " | min_p real 0 1 | top_p real 5e-324 1 | seed u64 | max_tokens int 1 1000000 | stop [stop] 0 4"
    " | coupling shared_noise/independent | window int 1 256 | branches int 1 16 | placement peer?"
    " | num_top_logprobs logprobs? | deadline_seconds seconds | settled [u32] 0 16384 = []",
    "2": "replica name | prefill_deadline_seconds seconds",
    "3": 'reason text 0 2000 | field name = "" | retry_after_seconds seconds? = null',
    "4": "num_contexts u32 | constant_weight_level weight? | decode_seconds seconds | rtt_seconds seconds? = null",
    "5": "id u32 | parent u32? | via u32? | position position | weight_level weight? | dropped mass"
    " | distribution binary 0 16384",
    "6": "position position | tokens [u32] 1 32 | details [Detail?] 0 32",
    "7": "placement peer | reason text 0 500",
    "8": "position position | drafts [5] 0 32",
    "9": "next_position position | last_sequence u64 | aggregator peer? | term_position position = 0"
    " | mix_position position? = null",
    "10": "reason stop/length/cancelled/error | counters Counters | documents [Document] 0 64 = []",
    "11": 'reason text 0 2000 | field name = ""',
    "12": "",
    "Fingerprint": "vocabulary name | template name | embedding name | embedding_dimension u32"
    " | embedding_revision name | weighting_rule relevance/equal/evidence/contrast | weighting_temperature real"
    " | weighting_beta real | weighting_gamma real | max_published_tokens u32 | nucleus real",
    "Turn": "role system/user/assistant | content text 0 2000000",
    "Detail": "opener_share share | logprob_level int 0 2147483648 | dropped mass | top [Top] 0 20 = []",
    "Top": "token u32 | logprob real",
    "Counters": "num_positions u32 = 0 | num_hits u32 = 0 | num_steps u32 = 0 | num_wasted_steps u32 = 0"
    " | max_window_used u32 = 0",
    "Document": "document_id name | share share",
}
TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "real": (int, float), "text": (str,), "binary": (bytes,)}


def read(kind: str, value: Any, path: str) -> Any:
    """The value with its fields named and bytes as hex."""
    base, *bounds = ALIASES.get(kind, kind).split()
    if base.endswith("?"):
        return None if value is None else read(base[:-1], value, path)
    if base == "Message" or base in LAYOUTS:
        return read_array(base, value, path)
    if "/" in base:
        is_fit = value in base.split("/")
    else:
        is_fit = type(value) in ((list,) if base.startswith("[") else TYPES[base])
        size = value if base in {"int", "real"} or not is_fit else len(value)
        is_fit = is_fit and (not bounds or float(bounds[0]) <= size <= float(bounds[1]))
    if not is_fit:
        raise RefusedError(path)
    if isinstance(value, list):
        return [read(base[1:-1], item, f"{path}[{at}]") for at, item in enumerate(value)]
    return value.hex() if isinstance(value, bytes) else value


def read_array(layout: str, value: Any, path: str) -> Any:
    if type(value) is not list or (layout == "Message" and not value):
        raise RefusedError(path)
    fields = {"tag": layout} if layout.isdigit() else {}
    if layout == "Message":
        if type(value[0]) is not int or not 1 <= value[0] <= 12:
            raise RefusedError(f"{path}[0]")
        return read_array(str(value[0]), value, path)
    for field in filter(None, LAYOUTS[layout].split(" | ")):
        name, kind = field.split(" ", 1)
        fields[name] = kind
    defaults = [json.loads(kind.split(" = ")[1]) for kind in fields.values() if " = " in kind]
    missing = len(fields) - len(value)
    if not 0 <= missing <= len(defaults):
        raise RefusedError(path)
    filled = value + defaults[len(defaults) - missing :]
    found = {}
    for at, ((name, kind), item) in enumerate(zip(fields.items(), filled, strict=True)):
        found[name] = item if name == "tag" else read(kind.split(" = ")[0], item, f"{path}[{at}]")
        if name == "tag" and str(item) != layout:
            raise RefusedError(f"{path}[0]")
    return found


def read_frame(frame: bytes) -> Any:
    """An envelope by field names."""
    if len(frame) > 1_048_576:
        raise RefusedError("frame")
    try:
        value = msgspec.msgpack.decode(frame)
    except msgspec.DecodeError as error:
        raise RefusedError("frame") from error
    if type(value) is not list or len(value) != 6:
        raise RefusedError("frame")
    return read("Envelope", value, "$")


def vocabulary_fingerprint(token_bytes: Sequence[bytes], special_ids: Sequence[int], end_ids: Sequence[int]) -> str:
    listed = b"".join(len(token).to_bytes(4, "little") + token for token in token_bytes)
    lists = "".join(f"[{', '.join(map(str, sorted(ids)))}]" for ids in (special_ids, end_ids))
    return hashlib.sha256(listed + lists.encode()).hexdigest()


# Section 8: the end.


def shown(
    tokens: Sequence[int], token_bytes: Sequence[bytes], end_ids: Sequence[int], stop: Sequence[str], max_tokens: int
) -> tuple[list[bytes], str | None]:
    """Bytes shown after each token, and the reason."""
    pieces: list[bytes] = []
    held = b""
    stops = [text.encode() for text in stop]
    for count, token in enumerate(tokens, 1):
        if token in end_ids:
            return [*pieces, held], "stop"
        held += token_bytes[token]
        if found := [held.index(text) for text in stops if text in held]:
            return [*pieces, held[: min(found)]], "stop"
        if count == max_tokens:
            return [*pieces, held], "length"
        tails = [length for text in stops for length in range(1, len(text)) if held.endswith(text[:length])]
        num_shown = len(held) - max([0, *tails, unfinished(held)])
        pieces.append(held[:num_shown])
        held = held[num_shown:]
    return pieces, None


def unfinished(held: bytes) -> int:
    """How many bytes at the end begin a UTF-8 character that is not complete."""
    for length in range(1, min(3, len(held)) + 1):
        lead = held[-length]
        if not 0x80 <= lead < 0xC0:
            needed = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
            return length if lead >= 0xC0 and length < needed else 0
    return 0


# Section 9: placement.


def saving(case: Mapping[str, Any]) -> float:
    """Z(opener, other) - Z(other, opener)."""
    levels = {peer: case[peer]["constant_weight_level"] for peer in ("opener", "other")}
    h = {"opener": 0.5, "other": 0.5} if None in levels.values() else shares(levels["opener"], levels["other"])
    a = {peer: value + 0.6 * (1 - value) for peer, value in h.items()}
    c = {peer: min(1.0, case[peer]["decode_seconds"]) for peer in h}
    rtt = min(2.0, case["rtt_seconds"] or 0.0)

    def z(here: str, there: str) -> float:
        m = max(c[here], c[there])
        return float(m + (1 - a[there]) * (max(c[here], c[there] + rtt) - m))

    return z("opener", "other") - z("other", "opener")


def placed(case: Mapping[str, Any]) -> str:
    return case["placement"] or ("other" if saving(case) >= 0 else "opener")
