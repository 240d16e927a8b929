"""A join token is one device's, of one generation, and lasts as long as it says."""

import datetime as dt
from typing import Any

import pytest

from dragon_core.fleet.join_token import JoinToken
from dragon_operator.devices.device import Device
from dragon_operator.devices.join_tokens import join_secret_object, join_token, known_join_token, open_join
from tests.unit.operator import sample

NOW = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)


def token(device: Device) -> JoinToken:
    return join_token(sample.deployment(), device, ca="CA", secret="s" * 32, now=NOW)


def test_a_token_is_known_again_from_its_secret() -> None:
    device = sample.device()
    made = token(device)
    assert known_join_token(join_secret_object(device, made), device) == made
    assert known_join_token(None, device) is None


@pytest.mark.parametrize("other", [sample.device({"joinTokenGeneration": 2}), sample.device(uid="d2")])
def test_that_of_another_generation_or_a_former_device_of_the_name_is_not(other: Device) -> None:
    device = sample.device()
    assert known_join_token(join_secret_object(device, token(device)), other) is None


@pytest.mark.parametrize("data", [None, {}, {"token": "!"}, {"token": "bm8gdG9rZW4="}])
def test_what_somebody_wrote_there_is_none(data: Any) -> None:
    device = sample.device()
    assert known_join_token({**join_secret_object(device, token(device)), "data": data}, device) is None


def test_the_broker_is_told_of_it_until_it_expires() -> None:
    made = token(sample.device({"joinTokenMinutes": 10}))
    opened = open_join(made, NOW + dt.timedelta(minutes=9))
    assert opened is not None
    assert (opened.secret, opened.expires) == (made.secret, made.expires)
    assert open_join(made, NOW + dt.timedelta(minutes=10)) is None
    assert open_join(None, NOW) is None
