"""The script of `helm test` against a device's API: it passes on an answer from both sides, and on nothing else."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from dragon_core.errors import EngineError
from dragon_runtime.answering.summary import BothSides
from edge_daemon.answers import Readiness
from tests.chart.helm import CHART
from tests.fakes.answers import ALL_GOOD, BAD, ScriptedAnswers, hello, summary, token
from tests.fakes.served_api import ServedApi, served_api

DAEMON = """\
#!/bin/sh
if [ "$1" = join ]; then
    cat >>"$FOLDER/tokens"
    [ -e "$FOLDER/refuse" ] && exit 1
    exit 0
fi
echo running >"$FOLDER/daemon"
exec sleep 600
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a `dragon-edge` that only takes notes, and a join token."""
    program = tmp_path / "dragon-edge"
    program.write_text(DAEMON)
    program.chmod(0o755)
    (tmp_path / "token").write_text("the-token\n")
    return tmp_path


@pytest.fixture
def answers() -> ScriptedAnswers:
    return ScriptedAnswers()


@pytest.fixture
async def api(answers: ScriptedAnswers) -> AsyncIterator[ServedApi]:
    async with served_api(answers) as served:
        yield served


async def ask(folder: Path, api: ServedApi, *, attempts: int = 2) -> tuple[int, str]:
    """Exit code and output of the script."""
    environment = {
        **os.environ,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "FOLDER": str(folder),
        "JOIN_TOKEN_FILE": str(folder / "token"),
        "DEVICE_URL": api.url,
        "RETRY_SECONDS": "0.05",
        "ATTEMPTS": str(attempts),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        CHART / "files" / "ask.py",
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode()


async def test_an_answer_from_both_sides_passes(folder: Path, api: ServedApi, answers: ScriptedAnswers) -> None:
    code, output = await ask(folder, api)
    assert code == 0, output
    assert "Hello there." in output
    assert output.endswith("PASSED: the answer came from both sides\n")
    assert (folder / "tokens").read_text() == "the-token\n"
    assert (folder / "daemon").exists()
    assert len(answers.requests) == 1
    assert [b"4711" in content for content in api.documents.contents.values()] == [True]


async def test_the_token_is_not_printed(folder: Path, api: ServedApi) -> None:
    _, output = await ask(folder, api)
    assert "the-token" not in output


async def test_it_asks_again_until_both_sides_answer(folder: Path, api: ServedApi, answers: ScriptedAnswers) -> None:
    whole = hello()
    last = summary()
    alone = replace(last, dragon=last.dragon.model_copy(update={"mixed_tokens": 0, "degraded_tokens": 3}))
    answers.script = [token(b"Alone", is_degraded=True), alone]

    async def cloud_comes() -> None:
        await answers.left.wait()
        answers.script = whole

    async with asyncio.TaskGroup() as group:
        group.create_task(cloud_comes())
        code, output = await ask(folder, api, attempts=60)
    assert code == 0, output
    assert "did not come from both sides" in output


@pytest.mark.parametrize(
    "changes",
    [
        {"mixed_tokens": 0, "degraded_tokens": 3},
        {"shares": BothSides(edge=1.0, cloud=0.0)},
        {"shares": BothSides(edge=None, cloud=None)},
    ],
)
async def test_an_answer_of_one_side_fails(
    folder: Path, api: ServedApi, answers: ScriptedAnswers, changes: dict[str, object]
) -> None:
    last = summary()
    answers.script = [token(b"Alone"), replace(last, dragon=last.dragon.model_copy(update=changes))]
    code, output = await ask(folder, api)
    assert code == 1
    assert "FAILED: question: the answer did not come from both sides" in output


async def test_an_answer_that_breaks_off_fails(folder: Path, api: ServedApi, answers: ScriptedAnswers) -> None:
    answers.script = [token(b"Hel"), EngineError("the engine died")]
    code, output = await ask(folder, api)
    assert code == 1
    assert "FAILED: question: the answer broke off: the engine died" in output


async def test_a_device_without_its_cloud_fails_with_the_reason(
    folder: Path, api: ServedApi, answers: ScriptedAnswers
) -> None:
    answers.readiness = Readiness(model=ALL_GOOD.model, store=ALL_GOOD.store, broker=ALL_GOOD.broker, cloud=BAD)
    code, output = await ask(folder, api)
    assert code == 1
    assert "FAILED: ready: the device is degraded: cloud: not there" in output


async def test_a_refused_token_fails(folder: Path, api: ServedApi) -> None:
    (folder / "refuse").touch()
    code, output = await ask(folder, api)
    assert code == 1
    assert "FAILED: join: dragon-edge join ended with 1" in output
    assert (folder / "tokens").read_text() == "the-token\n" * 2
    assert not (folder / "daemon").exists()
