"""The cloud alone, with its own passages."""

from dragon_core.types import WeightingRule
from dragon_runtime.settings import WeightingSettings
from evaluation.methods.method import Method

CLOUD_ONLY = Method(
    name="cloud only",
    weighting=WeightingSettings(rule=WeightingRule.EQUAL),
    passages=lambda prompt: (prompt.cloud,),
)
