"""The device alone, with its own passages."""

from dragon_core.types import WeightingRule
from dragon_runtime.settings import WeightingSettings
from evaluation.methods.method import Method

EDGE_ONLY = Method(
    name="edge only",
    weighting=WeightingSettings(rule=WeightingRule.EQUAL),
    passages=lambda prompt: (prompt.edge,),
)
