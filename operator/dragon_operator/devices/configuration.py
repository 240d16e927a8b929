"""What is wanted of a device: its own configuration over what holds for all devices of its deployment."""

from typing import Any, cast

from dragon_core.fleet.messages import Configuration, DeviceModel, SamplingDefaults, configuration_version
from dragon_operator.devices.device import Device
from dragon_operator.wanted.deployment import Deployment
from dragon_operator.wanted.spec import DeploymentSpec, DeviceConfiguration
from dragon_runtime.settings import PlacementChoice
from dragon_runtime.settings.spellings import agreed, setting_value


def configuration(spec: DeploymentSpec, own: DeviceConfiguration) -> Configuration:
    """The desired configuration of a device: its own over the deployment's `devices.defaults` over `aggregation`."""

    def pick(name: str) -> Any:
        return next((value for at in (own, spec.devices.defaults) if (value := getattr(at, name)) is not None), None)

    model, sampling, level = pick("model"), pick("sampling"), pick("log_level")
    # Auto pins nothing: a device that keeps every distribution to itself goes on doing so.
    pinned = None if spec.aggregation.placement is PlacementChoice.AUTO else spec.aggregation.placement
    placement = pick("placement")
    return Configuration(
        aggregation=agreed(spec.aggregation),
        window=pick("window") or spec.aggregation.window,
        branches=pick("branches") or spec.aggregation.branches,
        placement=cast("Any", pinned if placement is None else setting_value(placement)),
        log_level=None if level is None else cast("Any", setting_value(level)),
        model=None if model is None else DeviceModel(url=model.url, sha256=model.sha256),
        sampling=None
        if sampling is None
        else SamplingDefaults(temperature=sampling.temperature, top_p=sampling.top_p, max_tokens=sampling.max_tokens),
    )


def wanted_version(deployment: Deployment, device: Device) -> str:
    """The version of a device's desired configuration."""
    wanted = configuration(deployment.spec, device.spec.configuration)
    return configuration_version(wanted, heartbeat_seconds=deployment.spec.devices.heartbeat_seconds)
