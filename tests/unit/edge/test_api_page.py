"""docs/http-api.md names what the API knows: every route, parameter and error code."""

import re
from pathlib import Path

from dragon_runtime.answering.metrics import PeerMetrics
from edge_daemon.api.app import create_app
from edge_daemon.api.schemas import ChatCompletionRequest, DragonOptions, UnsupportedParameters
from edge_daemon.settings import ApiSettings
from tests.fakes.answers import ScriptedAnswers
from tests.fakes.documents import DocumentsInMemory

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")


def test_every_route_is_on_the_page() -> None:
    app = create_app(
        answers=ScriptedAnswers(),
        documents=DocumentsInMemory(),
        metrics=PeerMetrics("dragon_edge"),
        settings=ApiSettings(),
        api_key=None,
    )
    for path, methods in app.openapi()["paths"].items():
        shown = path.replace("{document_id}", "{id}")
        for method in methods:
            assert re.search(rf"`{method.upper()} {re.escape(shown)}[`?]", PAGE), f"{method} {path}"


def test_every_parameter_that_does_something_is_on_the_page() -> None:
    supported = set(ChatCompletionRequest.model_fields) - set(UnsupportedParameters.model_fields) - {"dragon"}
    for name in supported | {f"dragon.{name}" for name in DragonOptions.model_fields}:
        assert re.search(rf"`{re.escape(name)}[`.]", PAGE), name


def test_every_error_code_is_on_the_page() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "edge_daemon" / "api").glob("*.py"))
    codes = set(re.findall(r'code="([a-z_]+)"', source))
    assert len(codes) > 15
    for code in codes:
        assert f"`{code}`" in PAGE, code
