"""The programs of the images that are ours, as far as they need no container."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dragon_runtime.servers.mosquitto import find_mosquitto, free_port
from local_cluster.waiting import wait_until

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "images"


def loaded(path: Path) -> ModuleType:
    """A script as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`triton_repository`, which takes the repository of this checkout for the image's."""
    module = loaded(IMAGES / "triton" / "triton_repository.py")
    monkeypatch.setattr(module, "SOURCE", ROOT / "triton_models")
    return module


def test_a_repository_is_written_with_other_parameters_again_and_again(repository: Any, tmp_path: Path) -> None:
    for count in ("4", "8"):
        repository.write(tmp_path, {"causal_lm": {"num_sequences": count, "model_path": "/opt/models/a b.gguf"}})
        text = (tmp_path / "causal_lm" / "config.pbtxt").read_text()
        assert f'key: "num_sequences" value {{ string_value: "{count}" }}' in text
        assert 'key: "model_path" value { string_value: "/opt/models/a b.gguf" }' in text
    for name in ("causal_lm/1/model.py", "embedder/1/model.py", "embedder/config.pbtxt"):
        assert (tmp_path / name).read_bytes() == (ROOT / "triton_models" / name).read_bytes()


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"causal_lm": {"colour": "1"}}, "causal_lm has no parameter colour"),
        ({"causal_ml": {}}, "there is no model causal_ml"),
        ({"embedder": {"uri": 'a" } }'}}, "embedder uri: a value has no quotes"),
    ],
)
def test_a_repository_with_what_is_unknown_is_refused(
    repository: Any, tmp_path: Path, parameters: dict[str, dict[str, str]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        repository.write(tmp_path, parameters)


def test_the_template_of_milvus_is_filled_in() -> None:
    unpack = loaded(IMAGES / "milvus" / "unpack.py")
    template = (
        "port: {{ proxy_port(int): 19530 }}\nmode: {{ b: c }}\ndir: {{ etcd_data_dir }}\nlog: {{ system_log_path }}!"
    )
    filled = unpack.PLACE.sub(unpack.value_of, template)
    assert filled == "port: 19530\nmode: c\ndir: /var/lib/milvus/etcd\nlog: !"


def test_the_broker_starts_from_its_first_list_and_reads_changed_certificates_again(tmp_path: Path) -> None:
    kept, watched = tmp_path / "kept.json", tmp_path / "revoked.pem"
    (tmp_path / "dynamic-security.json").write_text('{"clients": []}')
    watched.write_text("none")
    # A broker that takes none of this seriously: what matters here is what it is told.
    program = tmp_path / "mosquitto"
    program.write_text(
        f"#!{sys.executable}\nimport signal, sys\nsignal.signal(signal.SIGHUP, lambda *_: print('again', flush=True))\n"
        "print(*sys.argv[1:], flush=True)\nwhile True: signal.pause()\n"
    )
    program.chmod(0o755)
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"listener 1\nplugin_opt_config_file {kept}\ncrlfile {watched}\n")
    log = tmp_path / "log"
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "DRAGON_BROKER_CONFIGURATION": str(configuration),
    }
    with log.open("wb") as output:
        broker = subprocess.Popen([IMAGES / "broker" / "dragon-broker"], env=environment, stdout=output, stderr=output)
    try:
        wait_until(lambda: f"-c {configuration}" in log.read_text(), "it is started")
        assert kept.read_text() == '{"clients": []}'
        assert kept.stat().st_mode & 0o777 == 0o600
        watched.write_text("one")
        wait_until(lambda: "again" in log.read_text().splitlines(), "it is told to read again")
    finally:
        broker.terminate()
        broker.wait(10)


def test_the_broker_s_own_list_outlives_a_start(tmp_path: Path) -> None:
    kept, port = tmp_path / "kept.json", free_port()
    kept.write_text("mine")
    (tmp_path / "dynamic-security.json").write_text("first")
    configuration = tmp_path / "mosquitto.conf"
    configuration.write_text(f"plugin_opt_config_file {kept}\nlistener {port} 127.0.0.1\n")
    folder = Path(find_mosquitto()).parent
    environment = {
        **os.environ,
        "PATH": f"{os.environ['PATH']}:{folder}",
        "DRAGON_BROKER_CONFIGURATION": str(configuration),
    }
    # A plugin option without a plugin ends it, after the list was looked at.
    ended = subprocess.run([IMAGES / "broker" / "dragon-broker"], env=environment, capture_output=True, check=False)
    assert ended.returncode != 0
    assert kept.read_text() == "mine"
