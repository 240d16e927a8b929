"""What was read stays as it was read."""

from dragon_operator.wanted import names
from tests.unit.operator import sample


def test_what_was_applied_is_beside_what_was_read() -> None:
    observed = sample.applied(sample.deployment())
    before = dict(observed.children)
    service = observed.children["Service", "helpdesk-broker"]
    answered = {**service, "spec": {**service["spec"], "clusterIP": "10.0.0.1"}}
    after = observed.after({names.reference(answered): answered})
    assert observed.children == before
    assert after.get("Service", "helpdesk-broker") == answered
    assert after.children.keys() == before.keys()
    assert (after.pods, after.foreign_secrets) == (observed.pods, observed.foreign_secrets)


def test_secrets_are_the_deployments_own_and_those_that_the_spec_names() -> None:
    observed = sample.applied(sample.deployment())
    assert set(observed.secrets.own) == {name for kind, name in observed.children if kind == "Secret"}
    assert observed.secrets.foreign is observed.foreign_secrets
