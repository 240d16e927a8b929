"""`dragonctl` against an API with fakes behind it: what it prints, how it ends, and one schema for what it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from dragon_cli.asking import BOTH_COLOUR, CLOUD_COLOUR, DEGRADED_COLOUR, EDGE_COLOUR, colour_of
from dragon_cli.main import app
from dragon_core.errors import EngineError, StoreFullError
from dragon_runtime.answering.summary import DragonSummary
from tests.fakes.answers import ScriptedAnswers, summary, token
from tests.fakes.documents import DocumentsInMemory
from tests.fakes.served_api import ServedApi, served_api

KEY = "a key that is long enough"


@pytest.fixture
async def api() -> AsyncIterator[ServedApi]:
    async with served_api() as api:
        yield api


async def dragonctl(api: ServedApi | None, *arguments: str, folder: Path | None = None) -> Result:
    """Run a command beside the event loop that serves the API."""
    url = "http://127.0.0.1:9" if api is None else api.url
    variables = {"DRAGONCTL_URL": url, "COLUMNS": "200", "DRAGONCTL_FOLDER": str(folder or "/nowhere")}
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments), env=variables))


async def test_an_answer_is_printed_and_how_it_came_about_goes_beside_it(api: ServedApi) -> None:
    result = await dragonctl(api, "ask", "Hi?")
    assert (result.exit_code, result.stdout) == (0, "Hello there.\n")
    for told in ("3 (0 by the device alone)", "edge 0.25, cloud 0.75", "100 up, 200 down", "0.25  note.txt"):
        assert told in result.stderr


async def test_ask_json_and_the_api_give_the_same_object(api: ServedApi) -> None:
    printed = json.loads((await dragonctl(api, "ask", "--json", "Hi?")).stdout)
    body = {"model": "toy", "messages": [{"role": "user", "content": "Hi?"}]}
    whole = (await api.http.post("/v1/chat/completions", json=body)).json()
    streamed = (await api.http.post("/v1/chat/completions", json={**body, "stream": True})).text
    last = json.loads(streamed.split("data: ")[-2])
    assert printed["dragon"] == whole["dragon"] == last["dragon"]
    assert set(printed) == {"text", "finish_reason", "dragon"}
    assert printed["text"] == whole["choices"][0]["message"]["content"]
    # Closed: a field more or less than the documented ones is an error.
    assert DragonSummary.model_validate_json(json.dumps(printed["dragon"])) == summary().dragon


async def test_a_question_can_come_from_a_pipe_and_options_reach_the_device() -> None:
    answers = ScriptedAnswers()
    async with served_api(answers) as api:
        arguments = ["ask", "-", "--seed", "9", "--temperature", "0.5", "--max-tokens", "7", "--edge-only"]
        variables = {"DRAGONCTL_URL": f"{api.url}/v1/"}  # as OpenAI's clients are given it
        result = await asyncio.to_thread(
            lambda: CliRunner().invoke(app, arguments, env=variables, input="From a pipe?")
        )
    assert result.exit_code == 0
    (asked,) = answers.requests
    assert (asked.messages[0].content, asked.seed, asked.max_tokens) == ("From a pipe?", 9, 7)
    assert (asked.sampling.temperature, asked.mode.value) == (0.5, "edge_only")


@pytest.mark.parametrize(
    ("share", "is_degraded", "colour"),
    [
        (0.9, False, EDGE_COLOUR),
        (0.1, False, CLOUD_COLOUR),
        (0.5, False, BOTH_COLOUR),
        (None, False, BOTH_COLOUR),
        (None, True, DEGRADED_COLOUR),
    ],
)
def test_a_token_has_the_colour_of_the_side_that_carried_it(
    share: float | None, colour: str, *, is_degraded: bool
) -> None:
    assert colour_of(share, is_degraded=is_degraded) == colour


async def test_an_answer_that_breaks_off_is_an_error() -> None:
    async with served_api(ScriptedAnswers([token(b"Hello"), EngineError("it was lost")])) as api:
        result = await dragonctl(api, "ask", "Hi?")
    assert result.exit_code == 1
    assert "dragonctl: the answer broke off: it was lost" in result.stderr


async def test_a_wrong_use_is_one_line_and_exit_code_1(api: ServedApi, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for arguments, told in (
        (["ask", "x", "--url", "http://127.0.0.1:9"], "nothing answers at http://127.0.0.1:9"),
        (["ask", "x", "--url", "localhost:8642"], "write it as http://host:port"),
        (["ask", "x", "--url", "http://a:port"], "is not the address of an API"),
        (["ask", "x", "--api-key-file", str(tmp_path / "none")], "cannot read"),
        (["documents", "add", str(tmp_path / "none.txt")], "no such file"),
        (["documents", "add", str(tmp_path / "empty")], "contains no document"),
        (["documents", "show", "none"], "there is no document 'none'"),
        (["documents", "delete", "none"], "there is no document 'none'"),
        (["status", "--folder", str(tmp_path / "none")], "start one with `dragonctl up`"),
        (["logs", "--folder", str(tmp_path / "none")], "`dragonctl up` starts a stack"),
        (["logs", "kitchen"], "there is no part 'kitchen'"),
        (["up", "--public-documents", str(tmp_path / "none")], "is not a folder of public documents"),
        (["up", "--model", str(tmp_path / "none.gguf")], "No such file"),
        (["up", "--model", str(tmp_path / "file")], "is no GGUF file"),
        (["up", "--model", "https://models/a.gguf"], "--model-sha256"),
        (["up", "--model", "https://models/a.gguf", "--model-sha256", "12"], "64 hexadecimal digits"),
        (["up", "--api-port", str(api.port)], f"port {api.port} is in use"),
        (["up", "--folder", str(tmp_path / "file" / "below")], "Not a directory"),
    ):
        result = await dragonctl(api, *arguments, folder=tmp_path / "stack")
        assert result.exit_code == 1, (arguments, result.output)
        assert told in result.stderr, arguments
        assert result.stderr.startswith("dragonctl: ")
        assert result.stderr.count("\n") == 1, result.stderr


async def test_a_key_is_read_from_a_file(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n")
    async with served_api(key=KEY) as api:
        assert (await dragonctl(api, "documents", "list", "--api-key-file", str(key))).exit_code == 0
        refused = await dragonctl(api, "documents", "list")
    assert (refused.exit_code, "needs its key" in refused.stderr) == (1, True)


async def test_documents_are_added_listed_shown_searched_and_deleted(api: ServedApi, tmp_path: Path) -> None:
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "[red]a.txt").write_text("the green house")
    (folder / "[bold]b.md").write_text("the red boat")
    (folder / "c.bin").write_bytes(b"ignored")
    added = await dragonctl(api, "documents", "add", str(folder))
    assert (added.exit_code, added.stdout) == (0, "2 documents can be found\n")
    again = await dragonctl(api, "documents", "add", str(folder / "[red]a.txt"))
    assert again.stdout == "[red]a.txt can be found\n"
    listed = await dragonctl(api, "documents", "list")
    for text in ("[red]a.txt", "[bold]b.md", "1/1", *api.documents.documents):
        assert text in listed.stdout
    rows = json.loads((await dragonctl(api, "documents", "list", "--json")).stdout)
    key = next(row["id"] for row in rows if row["name"] == "[bold]b.md")
    assert "text/markdown" in (await dragonctl(api, "documents", "show", key)).stdout
    found = await dragonctl(api, "documents", "search", "red boat", "--num-passages", "1")
    assert found.stdout == f"1.000  {key}\nthe red boat\n\n"
    assert (await dragonctl(api, "documents", "delete", key)).stdout == f"removed {key}\n"
    assert key not in api.documents.documents
    assert json.loads((await dragonctl(api, "documents", "search", "boat", "--json")).stdout)[0]["relevance"] == 0.0


async def test_documents_that_are_not_taken_are_named_with_the_reason(api: ServedApi, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "[b].pdf").write_bytes(b"no pdf")
    result = await dragonctl(api, "documents", "add", str(tmp_path))
    assert result.exit_code == 1
    assert f"{tmp_path / '[b].pdf'}: [b].pdf: this is no PDF" in result.stderr
    assert result.stderr.endswith("dragonctl: 1 of 2 documents were not added\n")
    assert len(api.documents.documents) == 1
    assert "there are no documents" not in (await dragonctl(api, "documents", "list")).stdout


async def test_a_full_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    async with served_api(documents=DocumentsInMemory(failure=StoreFullError("the disk is full: free some"))) as api:
        result = await dragonctl(api, "documents", "add", str(tmp_path / "a.txt"))
    assert result.exit_code == 1
    assert "the disk is full: free some" in result.stderr


async def test_an_empty_list_says_what_to_do(api: ServedApi) -> None:
    assert "`dragonctl documents add`" in (await dragonctl(api, "documents", "list")).stdout
