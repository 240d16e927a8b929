"""The test vectors of docs/protocol.md: written by the code, and reproduced by a second implementation of the page."""

import ast
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import independent_peer as peer

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "protocol-session.md"
VECTORS = ROOT / "docs" / "vectors"


def load(name: str, key: str) -> list[Any]:
    """Cases of a file, each named in the test report."""
    cases: list[Any] = json.loads((VECTORS / name).read_text(encoding="utf-8"))[key]
    return [pytest.param(case, id=case["name"]) if "name" in case else case for case in cases]


def close(expected: Any) -> Any:
    """Equal within what the page allows."""
    return pytest.approx(expected, rel=1e-12, abs=1e-12)


def write_vectors(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "scripts" / "write_vectors.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=root, env={"PYTHONPATH": str(ROOT)}, check=False)


# -- the files -----------------------------------------------------------------------------------------------------


def test_the_vectors_are_what_the_code_computes() -> None:
    result = write_vectors(ROOT, "--check")
    assert result.returncode == 0, result.stderr


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The script with its files in a folder of their own."""
    shutil.copytree(VECTORS, tmp_path / "docs" / "vectors")
    shutil.copytree(ROOT / "scripts" / "vectors", tmp_path / "scripts" / "vectors")
    shutil.copy(ROOT / "scripts" / "write_vectors.py", tmp_path / "scripts")
    return tmp_path


def test_a_changed_number_is_found_and_written_anew(copy: Path) -> None:
    changed, untouched = copy / "docs" / "vectors" / "noise.json", copy / "docs" / "vectors" / "ending.json"
    right = changed.read_text(encoding="utf-8")
    changed.write_text(right.replace("16294208416658607535", "16294208416658607530"), encoding="utf-8")
    written_at = untouched.stat().st_mtime_ns
    result = write_vectors(copy, "--check")
    assert result.returncode == 1
    assert result.stderr == f"{changed} is not what the code computes: run scripts/write_vectors.py\n"
    assert write_vectors(copy).returncode == 0
    assert changed.read_text(encoding="utf-8") == right
    assert untouched.stat().st_mtime_ns == written_at


def test_a_missing_and_an_unknown_file_are_found(copy: Path) -> None:
    folder = copy / "docs" / "vectors"
    (folder / "noise.json").rename(folder / "noises.json")
    result = write_vectors(copy, "--check")
    assert result.returncode == 1
    assert "noises.json is not written by" in result.stderr
    assert "noise.json is not what the code computes" in result.stderr


def test_a_last_bit_of_a_float_is_no_difference(copy: Path) -> None:
    path = copy / "docs" / "vectors" / "noise.json"
    text = path.read_text(encoding="utf-8")
    value = json.loads(text)["variates"][0]["gumbel"]
    path.write_text(text.replace(repr(value), repr(math.nextafter(value, 1))), encoding="utf-8")
    assert path.read_text(encoding="utf-8") != text
    assert write_vectors(copy, "--check").returncode == 0


def test_the_second_implementation_uses_nothing_of_ours() -> None:
    imports = "import sys, tests.independent_peer, tests.independent_session"
    code = f"{imports}; print(sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert "msgspec" in result.stdout
    assert not {"dragon_core", "dragon_runtime", "numpy"} & set(ast.literal_eval(result.stdout))


# -- noise ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("noise.json", "outputs"))
def test_the_page_gives_the_outputs(case: Any) -> None:
    assert [peer.splitmix(case["key"], index) for index in case["indices"]] == case["words"]


@pytest.mark.parametrize("case", load("noise.json", "variates"))
def test_the_page_gives_the_variates(case: Any) -> None:
    address = (case["seed"], case["stream"], case["position"], case["index"])
    assert peer.uniform(*address) == case["uniform"]
    assert peer.gumbel(*address) == close(case["gumbel"])


# -- distributions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("distributions.json", "made"))
def test_the_page_cuts_packs_and_decodes(case: Any) -> None:
    ids, levels, dropped = peer.cut(
        dict(case["probabilities"]), nucleus=case["nucleus"], max_tokens=case["max_published_tokens"]
    )
    assert (ids, levels, dropped) == (case["ids"], case["levels"], case["dropped"])
    assert peer.pack(ids, levels).hex() == case["body"]
    unpacked = peer.unpack(
        bytes.fromhex(case["body"]),
        vocabulary_size=case["vocabulary_size"],
        max_tokens=case["max_published_tokens"],
    )
    assert unpacked == (ids, levels)
    assert list(peer.decoded(*unpacked).values()) == close(case["decoded"])


@pytest.mark.parametrize("case", load("distributions.json", "received"))
def test_the_page_takes_or_refuses_a_body(case: Any) -> None:
    limits = {"vocabulary_size": case["vocabulary_size"], "max_tokens": case["max_published_tokens"]}
    if "field" in case:
        with pytest.raises(peer.RefusedError) as refused:
            peer.unpack(bytes.fromhex(case["body"]), **limits)
        assert refused.value.field == case["field"]
        return
    ids, levels = peer.unpack(bytes.fromhex(case["body"]), **limits)
    assert (ids, levels) == (case["ids"], case["levels"])
    assert list(peer.decoded(ids, levels).values()) == close(case["decoded"])


@pytest.mark.parametrize("case", load("distributions.json", "weights"))
def test_the_page_quantises_a_weight(case: Any) -> None:
    assert round(case["nat"] * 1024) == case["level"]


# -- weighting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("weighting.json", "cases"))
def test_the_page_weighs_and_mixes_contexts(case: Any) -> None:
    weights, weight, probabilities = peer.peer_distribution(case)
    assert weights == close(case["context_weights"])
    assert weight == close(case["weight"])
    assert round(weight * 1024) == case["weight_level"]
    assert probabilities == close(case["probabilities"])


@pytest.mark.parametrize("case", load("weighting.json", "contexts"))
def test_the_page_gives_the_relevance_of_several_passages(case: Any) -> None:
    tau = case["tau"]
    assert tau * peer.lse([relevance / tau for relevance in case["relevances"]]) == close(case["relevance"])


# -- mixture and couplings -----------------------------------------------------------------------------------------


def frames_of(case: Any) -> dict[str, peer.Frame]:
    return {
        side: peer.Frame(case[side]["weight_level"], case[side]["dropped"], distribution_of(case[side]["body"]))
        for side in ("opener", "other")
    }


def distribution_of(body: str) -> peer.Distribution:
    return peer.decoded(*peer.unpack(bytes.fromhex(body), vocabulary_size=100, max_tokens=64))


@pytest.mark.parametrize("case", load("coupling.json", "cases"))
def test_the_page_mixes_two_frames(case: Any) -> None:
    frames = frames_of(case)
    mixed, parts = peer.mix(frames)
    assert list(mixed) == case["ids"]
    assert list(mixed.values()) == close(case["probabilities"])
    assert list(parts.values()) == close(case["opener_parts"])
    share = peer.shares(frames["opener"].weight_level, frames["other"].weight_level)
    assert share["opener"] == close(case["opener_share"])


@pytest.mark.parametrize("kind", ["shared_noise", "independent"])
@pytest.mark.parametrize("case", load("coupling.json", "cases"))
def test_the_page_guesses_and_fixes_targets(case: Any, kind: str) -> None:
    expected, frames, position = case[kind], frames_of(case), case["position"]
    coupling = peer.Coupling(kind == "independent", case["seed"], case["temperature"])
    for side, frame in frames.items():
        assert coupling.guesses(side, frame, position, 2) == expected["guesses"][side]
    target = coupling.target(frames, position)
    assert target == expected["target"]
    found = peer.detail(frames, target, 3)
    for exact in ("opener_share", "logprob_level", "dropped"):
        assert found[exact] == expected["detail"][exact]
    for top, expected_top in zip(found["top"], expected["detail"]["top"], strict=False):
        assert top == close(expected_top)
    if "chosen" in expected:
        assert coupling.chosen(position) == expected["chosen"]
        assert (target == expected["guesses"][expected["chosen"]][0]) == expected["is_accepted"]


@pytest.mark.parametrize("case", load("coupling.json", "early"))
def test_the_page_settles_early_or_waits(case: Any) -> None:
    share = peer.shares(case["opener_weight_level"], case["other_weight_level"])[case["frame_of"]]
    assert peer.settle_early(share, distribution_of(case["body"])) == case["target"]


# -- messages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("messages.json", "cases"))
def test_the_page_names_every_field_of_a_message_in_order(case: Any) -> None:
    frame = bytes.fromhex(case["bytes"])
    found = peer.read_frame(frame)
    assert json.dumps(found) == json.dumps(case["envelope"])  # the order of the fields too
    assert msgspec.msgpack.encode(msgspec.msgpack.decode(frame)) == frame


@pytest.mark.parametrize("case", load("messages.json", "refused"))
def test_the_page_refuses_a_frame_and_names_the_field(case: Any) -> None:
    with pytest.raises(peer.RefusedError) as refused:
        peer.read_frame(bytes.fromhex(case["bytes"]))
    assert refused.value.field == case["field"]


def test_every_message_has_a_case() -> None:
    tags = {
        case["envelope"]["message"]["tag"] for case in (param.values[0] for param in load("messages.json", "cases"))
    }
    assert tags == set(range(1, 13))


def test_the_page_lists_the_fields_of_every_message() -> None:
    """The layouts that the second implementation reads with are the tables of the page."""
    rows = re.findall(
        r"^\| (?:\*\*(\w+)\*\*(?: \((\d+)\))?)? *\| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    listed: dict[str, list[str]] = {}
    layout = ""
    for name, tag, cell in rows:
        layout = tag or name or layout
        listed.setdefault(layout, []).extend(re.findall(r"\d+ (\w+)", cell))
    expected = {
        layout: [field.split()[0] for field in fields.split(" | ") if field]
        for layout, fields in peer.LAYOUTS.items()
        if layout not in {"Turn", "Top", "Document"}  # arrays of two, told in place
    }
    assert {layout: fields for layout, fields in listed.items() if layout in expected} == expected


@pytest.mark.parametrize("case", load("messages.json", "vocabularies"))
def test_the_page_gives_the_fingerprint_of_a_vocabulary(case: Any) -> None:
    token_bytes = [bytes.fromhex(token) for token in case["token_bytes"]]
    assert peer.vocabulary_fingerprint(token_bytes, case["special_ids"], case["end_ids"]) == case["fingerprint"]


# -- placement and ending ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", load("placement.json", "cases"))
def test_the_page_places_the_aggregator(case: Any) -> None:
    assert peer.saving(case) == close(case["saving_seconds"])
    assert peer.placed(case) == case["aggregator"]


@pytest.mark.parametrize("case", load("ending.json", "cases"))
def test_the_page_ends_an_answer(case: Any) -> None:
    content = json.loads((VECTORS / "ending.json").read_text(encoding="utf-8"))
    token_bytes = [bytes.fromhex(token) for token in content["token_bytes"]]
    pieces, reason = peer.shown(case["tokens"], token_bytes, content["end_ids"], case["stop"], case["max_tokens"])
    assert [piece.hex() for piece in pieces] == case["shown"]
    assert reason == case["reason"]
