"""Which unit tests `make check` leaves to `make test`, so that it takes less than a minute."""

import pytest

SLOW_MODULES = (
    "unit.cli.test_commands",
    "unit.cli.test_proxies",
    "unit.cli.test_stack",
    "unit.core.session.test_every_message",
    "unit.core.session.test_handovers",
    "unit.core.session.test_loss",
    "unit.core.session.test_replicas",
    "unit.core.test_coupling_frequencies",
    "unit.edge.test_api_chat",
    "unit.edge.test_api_documents",
    "unit.edge.test_api_health",
    "unit.edge.test_api_parameters",
    "unit.edge.test_api_security",
    "unit.edge.test_session_answers",
    "unit.runtime.test_driver_pairs",
    "unit.runtime.test_redaction",
    "unit.runtime.test_retries",
    "unit.test_page_workspace",
)
"""Each takes three seconds and more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of these modules."""
    for item in items:
        if isinstance(item, pytest.Function) and item.module.__name__.endswith(SLOW_MODULES):
            item.add_marker(pytest.mark.slow)
