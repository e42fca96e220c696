from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sketchify_rt.cli import engines
from sketchify_rt.cli.verbs import main
from sketchify_rt.tensorrt.cache import Engine, file_name, write
from sketchify_rt.tensorrt.record import Check, Machine, Origin, Recipe, Record

HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
A100 = Machine("11.4.0.106", "NVIDIA A100", "8.0")

DAMAGED = "is damaged: its SHA-256 differs"
REMEDY = (
    "To fix: `sketchify-rt build-engine` builds an engine, with --output FILE --force outside the "
    "cache; `sketchify-rt engines prune` removes what is damaged from the cache"
)

HEADINGS = ["name", "precision", "tile", "batch", "GPU", "TensorRT", "size", "built"]
HEADINGS += ["megapixels/s", "difference", "usable here"]

_built = iter(range(10**6))


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("SKETCHIFY_CACHE", str(tmp_path))
    monkeypatch.setattr(engines, "_machine", lambda: (HERE, ""))
    return tmp_path / "engines"


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_machine", lambda: (None, "no module named tensorrt"))


def put(root: Path, recipe: Recipe | None = None, machine: Machine = HERE) -> Engine:
    origin, recipe = Origin("lite", "ab" * 32), recipe or Recipe()
    check = Check(1.254, 0.0312, 812.5, 96)
    record = Record(origin, recipe, machine, check, f"2026-11-30T{next(_built):06}", 61.25)
    return write(root / file_name(origin, recipe, machine), record, b"p" * 4_200_000)


def damage(engine: Engine) -> Path:
    engine.path.write_bytes(engine.path.read_bytes()[:-1] + b"q")
    return engine.path


def call(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(main, ["engines", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


@pytest.mark.parametrize("arguments", [(), ("list",), ("verify",)])
def test_an_empty_cache_tells_how_to_build_an_engine(root: Path, arguments: tuple[str]) -> None:
    output = call(*arguments).stdout
    assert output.startswith(f"no engines in {root}. To build one")


def test_engines_are_listed_with_what_they_are_for(root: Path) -> None:
    engine = put(root)
    put(root, Recipe("int8", (8, 512, 1024), (1, 2, 2)), A100)
    title, header, other, own = call().stdout.splitlines()
    assert title == f"engines in {root}"
    starts = [header.index(name) for name in HEADINGS]
    cells = [own[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)]
    built = engine.record.built[:16].replace("T", " ")
    assert cells == [
        *("lite abababab", "fp16", "512", "1 16 32", "NVIDIA H200", "11.4.0.106", "4.2 MB"),
        *(built, "812", "1.25 0.031", "yes"),
    ]
    assert other.startswith("lite abababab  int8       8 512 1024  1 2      NVIDIA A100")
    assert other.endswith(
        "no: built for NVIDIA A100 (compute capability 8.0), this is NVIDIA H200 (compute "
        "capability 9.0)"
    )


def test_one_of_another_tensorrt_or_version_is_told(root: Path) -> None:
    engine = put(root, machine=dataclasses.replace(HERE, tensorrt="11.3.0.9"))
    assert call().stdout.endswith("no: built with TensorRT 11.3.0.9, this is 11.4.0.106\n")
    engine.path.write_bytes(engine.path.read_bytes().replace(b"engine 2 ", b"engine 99 ", 1))
    reason = "is of another version of sketchify-rt: got format 99, expected 2"
    assert f"{engine.path}: {reason}. {REMEDY}" in call().stdout


def test_without_a_gpu_all_is_listed(root: Path, no_gpu: None) -> None:
    put(root)
    lines = call("list").stdout.splitlines()
    assert lines[2].endswith("  1.25 0.031  unknown")
    assert lines[3] == "cannot tell which engines can be used here: no module named tensorrt"
    (engine,) = json.loads(call("list", "--json").stdout)["engines"]
    assert (engine["usable"], engine["why"]) == (None, "no module named tensorrt")


def test_a_damaged_engine_is_listed_with_what_to_do(root: Path) -> None:
    put(root)
    path = damage(put(root, Recipe("int8")))
    lines = call().stdout.splitlines()
    assert len(lines) == 4
    assert lines[3] == f"{path}: {DAMAGED}. {REMEDY}"


def test_the_list_as_json(root: Path) -> None:
    own, other, damaged = put(root), put(root, machine=A100), put(root, Recipe("int8"))
    damage(damaged)
    found: dict[str, Any] = json.loads(call("list", "--json").stdout)
    assert found["folder"] == str(root)
    assert found["machine"] == dataclasses.asdict(HERE)
    first, second = found["engines"]
    assert (first["path"], first["plan_bytes"]) == (str(other.path), 4_200_000)
    assert first["usable"] is False
    assert first["why"].startswith("built for NVIDIA A100")
    assert (second["usable"], second["why"]) == (True, None)
    assert second["recipe"]["batch"] == [1, 16, 32]
    assert second["check"] == dataclasses.asdict(own.record.check)
    (broken,) = found["damaged"]
    assert broken == {"path": str(damaged.path), "error": f"{damaged.path}: {DAMAGED}. {REMEDY}"}


def test_the_list_as_json_of_nothing_without_a_gpu(root: Path, no_gpu: None) -> None:
    expected = {"folder": str(root), "machine": None, "engines": [], "damaged": []}
    assert json.loads(call("list", "--json").stdout) == expected


def test_verify_reads_every_engine(root: Path) -> None:
    whole, other = put(root), put(root, Recipe("fp32"))
    assert call("verify").stdout.splitlines() == [
        f"{other.path}: not damaged, 4.2 MB",
        f"{whole.path}: not damaged, 4.2 MB",
    ]
    path = damage(other)
    result = call("verify", exit_code=1)
    assert result.stdout.splitlines() == [f"{whole.path}: not damaged, 4.2 MB"]
    assert result.stderr.splitlines() == [f"{path}: {DAMAGED}. {REMEDY}"]


def test_verify_reads_an_engine_elsewhere(root: Path, tmp_path: Path) -> None:
    damage(put(root))  # not asked about
    whole = put(root, Recipe("fp32")).path.rename(tmp_path / "one")
    damaged = damage(put(root, Recipe("int8"))).rename(tmp_path / "two")
    assert call("verify", str(whole)).stdout == f"{whole}: not damaged, 4.2 MB\n"
    result = call("verify", str(damaged), str(whole), str(tmp_path / "none"), exit_code=1)
    assert result.stdout == f"{whole}: not damaged, 4.2 MB\n"
    first, second = result.stderr.splitlines()
    assert first == f"{damaged}: {DAMAGED}. {REMEDY}"
    assert second.startswith(f"{tmp_path / 'none'}: cannot be read (No such file")


def test_prune_tells_what_it_removes_and_why(root: Path) -> None:
    put(root)
    stale = put(root, machine=dataclasses.replace(HERE, tensorrt="11.3.0.9")).path
    damaged = damage(put(root, Recipe("fp32")))
    whys = {
        f"{stale} (4.2 MB): built with TensorRT 11.3.0.9, this is 11.4.0.106",
        f"{damaged} (4.2 MB): {DAMAGED}",
        "8.4 MB",
    }
    told = call("prune", "--dry-run").stdout.splitlines()
    assert set(told) == {f"would remove {why}" for why in whys}
    assert stale.exists() and damaged.exists()
    assert set(call("prune").stdout.splitlines()) == {f"removed {why}" for why in whys}
    assert not stale.exists() and not damaged.exists()
    assert call("prune").stdout == f"{root}: nothing to remove\n"


def test_prune_removes_all_where_asked_to(root: Path, no_gpu: None) -> None:
    paths = {put(root).path, put(root, machine=A100).path}
    result = call("prune", "--all")
    assert set(result.stdout.splitlines()) == {
        f"removed {path} (4.2 MB): all are removed" for path in paths
    } | {"removed 8.4 MB"}
    assert result.stderr == ""
    assert list(root.iterdir()) == []


def test_prune_without_a_gpu_says_what_it_cannot_know(root: Path, no_gpu: None) -> None:
    damaged = put(root, machine=A100)
    damage(damaged)
    assert call("prune").stderr == ""
    stale = put(root, machine=dataclasses.replace(HERE, tensorrt="1"))
    result = call("prune")
    assert result.stdout == f"{root}: nothing to remove\n"
    assert result.stderr == (
        "cannot tell which engines are out of date: no module named tensorrt\n"
    )
    assert stale.path.exists()


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
def test_a_cache_that_cannot_be_read_is_told(
    monkeypatch: pytest.MonkeyPatch, root: Path, verb: str
) -> None:
    def refuse(_: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    result = call(verb, exit_code=1)
    assert result.stderr == (
        f"Error: {root}: the cache cannot be read (Permission denied); SKETCHIFY_CACHE sets "
        "another\n"
    )


@pytest.mark.parametrize("verb", ["list", "verify", "prune"])
def test_a_cache_in_the_home_of_nobody_is_told(monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("SKETCHIFY_CACHE", "~nobody at all/cache")
    result = call(verb, exit_code=1)
    assert result.stderr.startswith("Error: SKETCHIFY_CACHE is ~nobody at all/cache: ")


def test_it_works_without_torch_and_tensorrt(root: Path) -> None:
    engine = put(root)
    code = """
import sys
sys.modules["torch"] = sys.modules["tensorrt"] = None
from sketchify_rt.cli.verbs import main
from sketchify_rt.tensorrt.cache import Engine, file_name, write
from sketchify_rt.tensorrt.record import Check, Machine, Origin, Recipe, Record
main()
"""
    for verb, expected in {
        "list": "cannot tell which engines can be used here: import of torch halted",
        "verify": f"{engine.path}: not damaged, 4.2 MB",
        "prune": "nothing to remove",
    }.items():
        result = subprocess.run(
            [sys.executable, "-c", code, "engines", verb],
            capture_output=True,
            text=True,
            check=True,
        )
        assert expected in result.stdout
