"""A weighting rule that nobody computes must not become another one."""

from typing import Any

import numpy as np
import pytest

from dragon_core.types import Weighting
from dragon_core.weighting import constant_weights, weigh


def test_an_unknown_rule_is_refused() -> None:
    rule: Any = "position"
    weighting = Weighting(rule=rule)
    rows, relevances = np.log(np.full((1, 4), 0.25)), np.array([0.5])
    with pytest.raises(AssertionError, match="position"):
        constant_weights(relevances, weighting)
    with pytest.raises(AssertionError, match="position"):
        weigh(rows, rows[0], relevances, weighting)
