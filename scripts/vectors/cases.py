"""What several files have: a case as JSON, published distributions by their likeliest tokens, messages as fields."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from dragon_core import distribution
from dragon_core.types import Cut, Distribution

Case = dict[str, Any]
Pairs = Sequence[tuple[int, float]]
"""Token ids with their probabilities; all others have none."""
FEW: Pairs = [(3, 0.35), (9, 0.3), (20, 0.2), (1, 0.1), (2, 0.05)]


def published(pairs: Pairs, size: int, limit: Cut) -> Distribution:
    probabilities = np.zeros(size)
    for token, probability in pairs:
        probabilities[token] = probability
    return distribution.cut(probabilities, limit)


def fields_of(value: Any) -> Any:
    """A message as plain JSON: fields in wire order, bytes as hex, the tag first."""
    if isinstance(value, msgspec.Struct):
        tag = value.__struct_config__.tag
        fields = {name: fields_of(getattr(value, name)) for name in value.__struct_fields__}
        return fields if tag is None else {"tag": tag} | fields
    if isinstance(value, bytes):
        return value.hex()
    return [fields_of(item) for item in value] if isinstance(value, tuple) else value
