"""What users get wrong, with real parts: a port, a missing broker, a model file, a prompt. Each a clear error, and no
process left behind.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from dragon_cli.stack import Stack
from dragon_runtime.models import bundled_model
from tests.servers.daemon import Daemon
from tests.servers.local_stack import dragonctl

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

CONTEXT_LENGTH = 256


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("daemon")
    model = {"num_threads": 1, "num_sequences": 4, "context_length": CONTEXT_LENGTH}
    with Daemon(folder / "data", settings_folder=folder, model=model) as daemon:
        yield daemon


def test_a_port_in_use_is_one_line(daemon: Daemon, tmp_path: Path) -> None:
    other = Daemon(tmp_path / "data", settings_folder=tmp_path, api={"port": daemon.port})
    refusal = other.refusal()
    assert refusal.startswith(f"dragon-edge: api.host, api.port: cannot listen on 127.0.0.1:{daemon.port}: ")
    assert "in use" in refusal
    assert httpx.get(f"{daemon.url}/healthz").is_success, "the one that was there goes on"


def test_a_second_daemon_over_the_same_documents_is_one_line(daemon: Daemon, tmp_path: Path) -> None:
    other = Daemon(daemon.data_folder, settings_folder=tmp_path)
    assert "is in use by another process: stop that one first" in other.refusal()


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    refusal = Daemon(tmp_path / "file" / "data", settings_folder=tmp_path / "settings").refusal()
    assert refusal.startswith("dragon-edge: ")
    assert str(tmp_path / "file" / "data") in refusal


def test_a_prompt_longer_than_the_context_is_refused_with_both_lengths(daemon: Daemon) -> None:
    with OpenAI(base_url=f"{daemon.url}/v1", api_key="none", max_retries=0) as client:
        options: dict[str, Any] = {"model": client.models.list().data[0].id, "max_tokens": 20}
        for is_stream in (False, True):
            with pytest.raises(BadRequestError) as caught:
                client.chat.completions.create(messages=words(600), stream=is_stream, **options)
            assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
        told = [int(word.strip(";:,")) for word in caught.value.message.split() if word.strip(";:,").isdecimal()]
        num_prompt_tokens, num_answer_tokens, together, context_length = told[-4:]
        assert num_prompt_tokens > 600
        assert (num_answer_tokens, context_length) == (20, CONTEXT_LENGTH)
        assert together == num_prompt_tokens + num_answer_tokens
        # The same conversation with as few words as fit is answered.
        num_words = CONTEXT_LENGTH - 20 - (num_prompt_tokens - 600) - 1
        alone = {"dragon": {"mode": "edge_only"}}
        whole = client.chat.completions.create(messages=words(num_words), extra_body=alone, **options)
        assert whole.usage is not None
        assert CONTEXT_LENGTH - 25 < whole.usage.prompt_tokens <= CONTEXT_LENGTH - 20


def words(count: int) -> Any:
    """A conversation that is one message of so many words."""
    return [{"role": "user", "content": "word " * count}]


def without_mosquitto() -> tuple[str, ...]:
    """What a command is run by so that no mosquitto is found, wherever it is installed."""
    found = shutil.which("mosquitto", path=os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/usr/local/sbin")))
    if found is None:
        return ()
    # Hidden in a namespace of its own: nobody else sees the difference.
    hidden = ("unshare", "--mount", "sh", "-c", f'mount --bind /dev/null {found} && exec "$@"', "sh")
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("mosquitto is installed here and can only be hidden by root")
    return hidden


def test_without_mosquitto_both_commands_say_how_to_get_it(tmp_path: Path) -> None:
    before = without_mosquitto()
    up = dragonctl("up", folder=tmp_path, before=before)
    assert up.returncode == 1
    assert up.stderr.startswith("dragonctl: mosquitto is not installed: `apt-get install mosquitto`")
    assert up.stderr.count("\n") == 1
    assert not Stack(tmp_path).is_running
    doctor = dragonctl("doctor", folder=tmp_path, before=before)
    assert doctor.returncode == 1
    row = next(line for line in doctor.stdout.splitlines() if "mosquitto (MQTT broker)" in line)
    assert "missing" in row
    assert "apt-get install mosquitto" in row


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue  # it has ended
        if str(folder) in command:
            found.append(command)
    return found


def test_a_truncated_model_stops_the_stack_and_leaves_nothing_running(tmp_path: Path) -> None:
    model = tmp_path / "half.gguf"
    with bundled_model().open("rb") as whole:
        model.write_bytes(whole.read(2_000_000))
    stack = Stack(tmp_path / "stack")
    up = dragonctl("up", "--model", str(model), folder=stack.folder)
    assert up.returncode == 1
    assert f"{model} cannot be loaded as a model: it may be truncated or damaged; get it again" in up.stderr
    assert up.stderr.startswith("dragonctl: the ")
    assert up.stderr.count("\n") == 1
    assert not stack.is_running
    assert not processes_of(stack.folder)


def test_a_stack_on_a_port_in_use_is_not_started(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        up = dragonctl("up", "--api-port", str(port), folder=tmp_path)
    assert (up.returncode, up.stderr.count("\n")) == (1, 1)
    assert f"port {port} is in use on this machine: choose another port with --api-port" in up.stderr
    assert not Stack(tmp_path).is_running
