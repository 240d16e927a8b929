"""Settings of both ends: the groups they share, how they are loaded, and how their reference page is written."""

from dragon_runtime.settings.groups import (
    BrokerSettings,
    EmbeddingSettings,
    LogFormat,
    LogLevel,
    LogSettings,
    ModelSettings,
    PlacementChoice,
    ProtocolSettings,
    SettingsGroup,
    StoreSettings,
    TritonSettings,
    WeightingSettings,
    is_loopback,
    read_secret,
)
from dragon_runtime.settings.loading import PeerSettings, load_settings
from dragon_runtime.settings.reference import Leaf, describe, leaves

__all__ = [
    "BrokerSettings",
    "EmbeddingSettings",
    "Leaf",
    "LogFormat",
    "LogLevel",
    "LogSettings",
    "ModelSettings",
    "PeerSettings",
    "PlacementChoice",
    "ProtocolSettings",
    "SettingsGroup",
    "StoreSettings",
    "TritonSettings",
    "WeightingSettings",
    "describe",
    "is_loopback",
    "leaves",
    "load_settings",
    "read_secret",
]
