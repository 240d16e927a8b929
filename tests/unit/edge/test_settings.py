"""Settings of both ends: where values come from, what stops the start, what is never shown, and the reference page."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cloud_peer.settings import CloudSettings
from dragon_core.errors import SettingsError
from dragon_core.types import CouplingKind, Cut, Peer, Weighting, WeightingRule
from dragon_runtime.settings import LogLevel, PeerSettings, PlacementChoice, is_loopback, leaves, load_settings
from edge_daemon.settings import EdgeSettings

PROTOCOL = {
    "window": 32,
    "branches": 2,
    "max_published_tokens": 64,
    "nucleus": 0.99,
    "coupling": "shared_noise",
    "placement": "auto",
    "num_passages": 2,
    "passages_per_context": 2,
}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("DRAGON_")]:
        monkeypatch.delenv(variable)


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("cls", [EdgeSettings, CloudSettings])
def test_protocol_settings_have_the_documented_names_and_defaults(cls: type[Any]) -> None:
    settings = load_settings(cls, overrides={"device": "pi"} if cls is EdgeSettings else {})
    assert {name: getattr(settings, name) for name in PROTOCOL} == PROTOCOL
    assert settings.weighting.to_weighting() == Weighting(rule=WeightingRule.EVIDENCE, temperature=0.1, gamma=0.5)
    assert settings.cut == Cut(nucleus=0.99, max_published_tokens=64)


def test_flags_win_over_environment_over_file_over_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "device: from-file\nwindow: 3\nbranches: 4\nbroker: {host: file, port: 2000}\n")
    monkeypatch.setenv("DRAGON_BRANCHES", "5")
    monkeypatch.setenv("DRAGON_BROKER__HOST", "environment")
    monkeypatch.setenv("DRAGON_API__ALLOWED_HOSTS", "pi.lan, other.lan")
    settings = load_settings(EdgeSettings, path, {"branches": 6, "api": {"port": 7000}, "log.level": None})
    assert (settings.device, settings.window, settings.branches) == ("from-file", 3, 6)
    assert (settings.broker.host, settings.broker.port) == ("environment", 2000)
    assert settings.api.allowed_hosts == ("pi.lan", "other.lan")
    assert settings.api.port == 7000
    assert settings.log.level == "info"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGON_CONFIG", str(written(tmp_path, "device: named\n")))
    assert load_settings(EdgeSettings).device == "named"


@pytest.mark.parametrize(
    ("variable", "text", "path", "expected"),
    [
        ("DRAGON_WEIGHTING__BETA", "0.5", "weighting.beta", 0.5),
        ("DRAGON_COUPLING", "independent", "coupling", CouplingKind.INDEPENDENT),
        ("DRAGON_MODEL__NUM_THREADS", "3", "model.num_threads", 3),
        ("DRAGON_MODEL__PATH", "~/model.gguf", "model.path", Path("~/model.gguf").expanduser()),
        ("DRAGON_LOG__LEVEL", "DEBUG", "log.level", LogLevel.DEBUG),
        ("DRAGON_API__ALLOWED_ORIGINS", "https://a:1,https://b", "api.allowed_origins", ("https://a:1", "https://b")),
    ],
)
def test_a_variable_becomes_a_value_of_its_type(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, path: str, expected: object
) -> None:
    monkeypatch.setenv(variable, text)
    value: object = load_settings(EdgeSettings, overrides={"device": "pi"})
    for part in path.split("."):
        value = getattr(value, part)
    assert value == expected


@pytest.mark.parametrize("variable", ["DRAGON_CACHE", "DRAGON_E2E_KUBECONFIG"])
def test_variables_of_the_scripts_may_be_exported(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "somewhere")
    assert load_settings(EdgeSettings, overrides={"device": "pi"}).device == "pi"


def test_names_of_variables_are_unique() -> None:
    for cls in (EdgeSettings, CloudSettings):
        found = [leaf.environment for leaf in leaves(cls)]
        assert len(set(found)) == len(found)
        assert all(leaf.description for leaf in leaves(cls))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("wndow: 3", "wndow: there is no such setting; did you mean window?"),
        ("broker: {prot: 3}", "broker.prot: there is no such setting; did you mean broker.port?"),
        ("api: {port: 99999}", "api.port: Input should be less than or equal to 65535, not 99999"),
        ("weighting: {rule: best}", "weighting.rule"),
        ("device: Not A Topic/Name", "device"),
        ("api: {host: 0.0.0.0}", "api: host 0.0.0.0 is reachable from other machines: set api_key_file"),
        ("api: {allowed_origins: ['pi.lan']}", "'pi.lan' is not an origin"),
        ("model: {path: a.gguf, url: 'https://models/a.gguf'}", "model: set path or url, not both"),
        ("model: {url: 'https://models/a.gguf'}", "model: a model from a url needs its sha256"),
        ("store: {folder: here, uri: 'http://milvus'}", "store: set folder or uri, not both"),
        ("broker: {key_file: key.pem}", "broker: certificate_file and key_file belong together"),
        ("window: 3\nwindow: 4", "line 3: the key 'window' stands twice"),
        ("[1, 2]", "cannot be read"),
        ("a: [", "cannot be read"),
    ],
)
def test_a_bad_file_stops_the_start_and_names_the_key(tmp_path: Path, text: str, expected: str) -> None:
    path = written(tmp_path, text if text.startswith("device") else f"device: pi\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(EdgeSettings, path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_variable_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGON_BROKER__PROT", "1")
    with pytest.raises(SettingsError, match=r"DRAGON_BROKER__PROT: .* did you mean DRAGON_BROKER__PORT"):
        load_settings(EdgeSettings, overrides={"device": "pi"})


def test_a_missing_required_setting_and_a_missing_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not enrolled: run `dragon-edge join TOKEN`"):
        load_settings(EdgeSettings)
    with pytest.raises(SettingsError, match="nowhere"):
        load_settings(EdgeSettings, tmp_path / "nowhere.yaml")


@pytest.mark.parametrize("cls", [EdgeSettings, CloudSettings])
def test_a_setting_that_is_given_changes_no_other(tmp_path: Path, cls: type[PeerSettings]) -> None:
    required = "device: pi\n" if cls is EdgeSettings else ""
    untouched = load_settings(cls, written(tmp_path, required)).model_dump()
    given = load_settings(cls, written(tmp_path, f"{required}model: {{num_threads: 2}}\nlog: {{level: debug}}\n"))
    assert given.model_dump() == {
        **untouched,
        "model": {**untouched["model"], "num_threads": 2},
        "log": {**untouched["log"], "level": LogLevel.DEBUG},
    }


def test_secrets_are_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(CloudSettings, written(tmp_path, "store: {uri: 'http://milvus', token: 'root:hush'}"))
    assert settings.store.token is not None
    assert settings.store.token.get_secret_value() == "root:hush"
    assert "hush" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(SettingsError) as caught:
        load_settings(CloudSettings, written(tmp_path, "store: {uri: 'http://milvus', token: [hush]}"))
    assert "store.token" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_secret_files_are_read_when_asked(tmp_path: Path) -> None:
    key = tmp_path / "key"
    settings = load_settings(EdgeSettings, overrides={"device": "pi", "api.host": "0.0.0.0", "api.api_key_file": key})  # noqa: S104 - what the key is for
    with pytest.raises(SettingsError, match=r"api\.api_key_file: cannot read"):
        settings.api.api_key()
    key.write_text("\n")
    with pytest.raises(SettingsError, match="is empty"):
        settings.api.api_key()
    key.write_text("short")
    with pytest.raises(SettingsError, match="5 characters; it needs at least 16") as caught:
        settings.api.api_key()
    assert "short" not in str(caught.value)
    key.write_text("a key that is long enough\n")
    found = settings.api.api_key()
    assert found is not None
    assert found.get_secret_value() == "a key that is long enough"


def test_settings_made_in_code_do_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAGON_WINDOW", "7")
    assert EdgeSettings(device="pi").window == 32


def test_settings_are_frozen() -> None:
    settings = EdgeSettings(device="pi")
    with pytest.raises(ValueError, match="frozen"):
        settings.window = 3


@pytest.mark.parametrize(
    ("num_passages", "per_context", "expected"), [(0, 2, 1), (1, 2, 1), (2, 2, 1), (3, 2, 2), (4, 1, 4)]
)
def test_contexts_of_an_answer(num_passages: int, per_context: int, expected: int) -> None:
    settings = EdgeSettings(device="pi", num_passages=num_passages, passages_per_context=per_context)
    assert settings.max_contexts == expected


def test_a_pinned_placement_is_a_peer() -> None:
    assert EdgeSettings(device="pi", placement=PlacementChoice.EDGE).placement.pinned is Peer.OPENER
    assert EdgeSettings(device="pi", placement=PlacementChoice.CLOUD).placement.pinned is Peer.OTHER
    assert EdgeSettings(device="pi").placement.pinned is None


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", ""])  # noqa: S104 - not loopback is the point
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_the_reference_pages_are_what_the_code_says() -> None:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, str(root / "scripts" / "write_reference.py"), "--check"]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(root)}, check=False
    )
    assert result.returncode == 0, result.stderr
