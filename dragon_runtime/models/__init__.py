"""Where a language model comes from. `python -m dragon_runtime.models` puts one into a folder."""

from dragon_runtime.models.resolving import bundled_model

__all__ = ["bundled_model"]
