"""Engine files, the records in them, and the folder that they are kept in."""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
from multiprocessing.synchronize import Condition
from pathlib import Path
from typing import Any

import pytest

from sketchify_rt import models
from sketchify_rt.errors import EngineError, OptionsError, OutputError
from sketchify_rt.tensorrt import cache, record
from sketchify_rt.tensorrt.cache import Damaged, Engine, file_name, find, locked, prune, read, write
from sketchify_rt.tensorrt.record import Check, Machine, Origin, Recipe, Record

ORIGIN = Origin("lite", "ab" * 32)
RECIPE = Recipe()
HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
A100 = Machine("11.4.0.106", "NVIDIA A100", "8.0")
CHECK = Check(1.25, 0.031, 812.5, 96)
OLD, NEW = b"old\nplan" * 512, b"new plan" * 512

_built = iter(range(10**6))


def a_record(
    origin: Origin = ORIGIN, recipe: Recipe = RECIPE, machine: Machine = HERE, seconds: float = 61.0
) -> Record:
    return Record(origin, recipe, machine, CHECK, f"2026-11-30T{next(_built):06}", seconds)


def put(root: Path, plan: bytes = OLD, **parts: Any) -> Engine:
    made = a_record(**parts)
    return write(root / file_name(made.origin, made.recipe, made.machine), made, plan)


def change(value: Any, **changes: Any) -> Any:
    return dataclasses.replace(value, **changes)


def engines_in(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.engine")}


def whys(removed: list[tuple[Path, str, int]]) -> dict[Path, str]:
    return {path: why for path, why, _ in removed}


def flip(path: Path, bit: int = 10_000) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


# What is asked for, and the name of its file.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": (1, 32, 16)}, "batch sizes must rise .*, got 1, 32, 16"),
        ({"tile": (96, 96, 96)}, "tile must be a multiple of 8 from 104 on for lite, got 96"),
        ({"tile": (108, 108, 108)}, "tile must be a multiple of 8 from 104 on for lite, got 108"),
    ],
)
def test_a_recipe_that_the_model_cannot_take_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(OptionsError, match=message):
        Recipe(**changes).check(models.load("lite").manifest)


def test_a_recipe_is_static_or_dynamic() -> None:
    assert Recipe().static
    assert not Recipe(tile=(8, 512, 1024)).static


OTHERS: list[dict[str, Any]] = [
    {"origin": change(ORIGIN, sha256="other")},
    *({"machine": change(HERE, **{f.name: "1"})} for f in dataclasses.fields(Machine)),
    {"recipe": Recipe(precision="fp32")},
    {"recipe": Recipe(tile=(256, 512, 512))},
    {"recipe": Recipe(batch=(1, 16, 64))},
    {"recipe": Recipe(optimization_level=4)},
    {"recipe": Recipe(workspace=1024)},
    {"recipe": Recipe(version_compatible=True)},
    {"recipe": Recipe(hardware_compatible=True)},
]


def test_whatever_changes_gives_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    same: dict[str, Any] = {"origin": ORIGIN, "recipe": RECIPE, "machine": HERE}
    names = [file_name(**{**same, **other}) for other in [{}, *OTHERS]]
    monkeypatch.setattr(cache, "FORMAT", record.FORMAT + 1)
    names.append(file_name(**same))
    assert len(set(names)) == len(names)
    changed = {
        field.name
        for field in dataclasses.fields(Recipe)
        for other in OTHERS
        if getattr(other.get("recipe", RECIPE), field.name) != getattr(RECIPE, field.name)
    }
    assert changed == {field.name for field in dataclasses.fields(Recipe)}


def test_a_file_has_the_name_of_its_model_whatever_that_is() -> None:
    assert file_name(ORIGIN, RECIPE, HERE) == "lite-fp16-4777549ea8360334.engine"
    for name in ("../a/b", "线稿 model", "", "x" * 300, "a\n\0b"):
        file = file_name(change(ORIGIN, name=name), RECIPE, HERE)
        assert "/" not in file and "\0" not in file and len(file.encode()) < 240
        assert cache._NAME.fullmatch(file)


def test_the_cache_is_where_the_environment_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SKETCHIFY_CACHE", "~/of mine")
    assert cache.root() == tmp_path / "of mine" / "engines"
    monkeypatch.setenv("SKETCHIFY_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(OutputError, match="SKETCHIFY_CACHE is ~nobody-of-that-name/cache: "):
        cache.root()
    monkeypatch.delenv("SKETCHIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.root() == tmp_path / "xdg" / "sketchify-rt" / "engines"


# Writing and reading.


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    recipe = Recipe("int8", (8, 512, 1024), (1, 2, 4), 5, 2048, True, True)
    engine = put(tmp_path, recipe=recipe)
    assert read(engine.path) == engine
    assert (engine.record.recipe, engine.record.check, engine.plan) == (recipe, CHECK, OLD)
    head, text, plan = engine.path.read_bytes().split(b"\n", 2)
    assert head.startswith(b"sketchify-rt engine 2 ")
    assert json.loads(text)["machine"]["gpu"] == "NVIDIA H200"
    assert plan == OLD
    assert put(tmp_path, NEW).path == put(tmp_path).path
    assert len(engines_in(tmp_path)) == 2


def test_each_flipped_bit_is_found(tmp_path: Path) -> None:
    engine = put(tmp_path, b"the whole plan")
    data = engine.path.read_bytes()
    for bit in range(len(data) * 8):
        flip(engine.path, bit)
        with pytest.raises(Damaged, match=r"is damaged|not an engine|of another version"):
            read(engine.path)
        engine.path.write_bytes(data)
    for cut in (b"", data[:-2], data[:50], data + b"\n"):
        engine.path.write_bytes(cut)
        with pytest.raises(Damaged):
            read(engine.path)


def test_damage_is_told_with_file_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "none.engine"
    with pytest.raises(Damaged) as caught:
        read(path)
    reason = "cannot be read (No such file or directory)"
    assert str(caught.value).startswith(f"{path}: {reason}. To fix: `sketchify-rt build-engine`")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path, again.reason) == (str(caught.value), path, reason)


def test_other_formats_are_refused_in_a_sentence(tmp_path: Path) -> None:
    engine = put(tmp_path)
    data = engine.path.read_bytes()
    engine.path.write_bytes(data.replace(b"engine 2 ", b"engine 99 ", 1))
    reason = "is of another version of sketchify-rt: got format 99, expected 2"
    with pytest.raises(Damaged, match=f"{engine.path}: {reason}. To fix: "):
        read(engine.path)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, f"{engine.path.name}: {reason}")
    assert whys(prune(tmp_path, None)) == {engine.path: reason}
    assert not engine.path.exists()
    with pytest.raises(Damaged, match=r"of another version .*: got a folder, expected a file"):
        read(tmp_path)


@pytest.mark.parametrize("there", [False, True], ids=["first", "replacement"])
def test_a_full_disk_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, there: bool
) -> None:
    if there:
        put(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot be written .No space left.*SKETCHIFY_CACHE"):
        put(tmp_path, NEW)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_cache_that_cannot_be_used_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in tmp_path / "file", tmp_path / "file" / "engines", Path("/proc/engines"):
        with pytest.raises(OutputError, match="the engine cannot be written"):
            put(folder)
        with (
            pytest.raises(OutputError, match="the engine cannot be written"),
            locked(folder / "engine"),
        ):
            pass
    for use in cache.engines, lambda root: prune(root, HERE):
        with pytest.raises(OutputError, match=r"the cache cannot be read .Not a directory"):
            use(tmp_path / "file")

    def refuse(*_: Any, **__: Any) -> Any:  # root may do everything: so the system call refuses
        raise PermissionError(errno.EACCES, "Permission denied")

    engine = put(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        (found,) = cache.engines(tmp_path)
        assert isinstance(found, Damaged)
        assert found.reason == "cannot be read (Permission denied)"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OutputError, match=f"{engine.path}: the engine cannot be removed"):
            prune(tmp_path, HERE, everything=True)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (engine, "")


# Processes that want the same.


def want(root: Path, arrived: Any, turn: Condition, failures: int, built: Path) -> None:
    """One of many processes: finds the engine or builds it, when all have come."""
    with turn:
        arrived.value += 1
        turn.notify_all()
    with locked(root / file_name(ORIGIN, RECIPE, HERE)):
        if find(root, ORIGIN, "fp16", HERE)[0]:
            return
        with turn:
            assert turn.wait_for(lambda: arrived.value == 8, timeout=60)
        with built.open("a") as file:
            file.write("x")
        if len(built.read_text()) > failures:
            put(root, NEW)


@pytest.mark.parametrize("failures", [0, 3])
def test_of_eight_processes_one_builds(tmp_path: Path, failures: int) -> None:
    context = multiprocessing.get_context("spawn")
    arrived, turn, built = context.Value("i", 0), context.Condition(), tmp_path / "built"
    root = tmp_path / "cache"
    processes = [
        context.Process(target=want, args=(root, arrived, turn, failures, built)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 8
    assert built.read_text() == "x" * (failures + 1)
    (engine,) = cache.engines(root)
    assert isinstance(engine, Engine)
    assert engine.plan == NEW


def test_who_waits_says_so_once_and_can_give_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = iter(range(10))

    def waiting() -> None:
        if next(calls) == 1:
            raise InterruptedError

    path = tmp_path / "an.engine"
    with (
        caplog.at_level(logging.INFO, "sketchify_rt"),
        locked(path),
        pytest.raises(InterruptedError),
        locked(path, waiting),
    ):
        pass
    assert [entry.getMessage() for entry in caplog.records] == [
        f"{path}: another process is building this engine; waiting for it"
    ]
    assert [*tmp_path.iterdir()] == []


def test_the_lock_of_a_killed_process_holds_nobody(tmp_path: Path) -> None:
    path = tmp_path / "an.engine"
    code = f"""
import os, signal
from pathlib import Path
from sketchify_rt.tensorrt.cache import locked
with locked(Path({str(path)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL

    def waiting() -> None:
        raise AssertionError("nobody holds it")

    with locked(path, waiting):
        pass


# Which engine can be used.


PORTABLE = Recipe(hardware_compatible=True)
VERSIONED = Recipe(version_compatible=True)


def tensorrt(version: str) -> Machine:
    return Machine(version, "NVIDIA H200", "9.0")


@pytest.mark.parametrize(
    ("recipe", "machine", "asked", "why"),
    [
        # of what it was built, where, asked of what, and why not
        (RECIPE, HERE, {}, ""),
        (RECIPE, HERE, {"sha256": "cd" * 32}, "built from other weights, this is lite"),
        (RECIPE, HERE, {"name": "new", "sha256": "cd"}, "built from the model lite, this is new"),
        (RECIPE, HERE, {"name": "renamed"}, ""),
        (
            RECIPE,
            A100,
            {},
            "built for NVIDIA A100 (compute capability 8.0), this is NVIDIA H200 (compute c",
        ),
        (PORTABLE, A100, {}, ""),
        (PORTABLE, Machine("11.4.0.106", "NVIDIA B200", "10.0"), {}, ""),
        (PORTABLE, Machine("11.4.0.106", "NVIDIA T4", "7.5"), {}, "built for NVIDIA T4 (comput"),
        (VERSIONED, A100, {}, "built for NVIDIA A100 (compute"),
        (RECIPE, tensorrt("11.3.9.1"), {}, "built with TensorRT 11.3.9.1, this is 11.4.0.106"),
        (VERSIONED, tensorrt("11.3.9.1"), {}, ""),
        (VERSIONED, tensorrt("10.16.1.2"), {}, ""),
        (VERSIONED, tensorrt("11.4.0.107"), {}, "built with TensorRT 11.4.0.107, this"),
        (VERSIONED, tensorrt("11.10.0.1"), {}, "built with TensorRT 11.10.0.1, this is"),
        (VERSIONED, tensorrt("9.3.0.1"), {}, "built with TensorRT 9.3.0.1, this is"),
        (VERSIONED, tensorrt("12.0.0.1"), {}, "built with TensorRT 12.0.0.1, this is"),
        (PORTABLE, tensorrt("11.3.9.1"), {}, "built with TensorRT 11.3.9.1, this is"),
        (
            RECIPE,
            change(A100, tensorrt="11.3.9.1"),
            {"sha256": "cd"},
            "built from other weights, this is lite; built with TensorRT 11.3.9.1, this is "
            "11.4.0.106; built for NVIDIA A100",
        ),
    ],
)
def test_an_engine_fits_or_the_reason_is_told(
    recipe: Recipe, machine: Machine, asked: dict[str, str], why: str
) -> None:
    made = a_record(recipe=recipe, machine=machine)
    reason = made.mismatch(HERE, change(ORIGIN, **asked))
    assert reason.startswith(why)
    assert bool(reason) == bool(why)


def test_the_newest_that_fits_is_found(tmp_path: Path) -> None:
    assert find(tmp_path / "none", ORIGIN, "fp16", HERE) == (None, "")
    put(tmp_path)
    newest = put(tmp_path, recipe=Recipe(batch=(1, 1, 1)))
    put(tmp_path, recipe=Recipe("int8"))
    put(tmp_path, machine=A100)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (newest, "")


def test_one_of_this_gpu_is_found_before_one_that_also_runs_here(tmp_path: Path) -> None:
    own = put(tmp_path)
    portable = put(tmp_path, recipe=PORTABLE, machine=A100)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (own, "")
    own.path.unlink()
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (portable, "")


def test_where_none_fits_the_reason_is_told(tmp_path: Path) -> None:
    put(tmp_path, origin=change(ORIGIN, name="other", sha256="cd"))
    put(tmp_path, recipe=Recipe("int8"))
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, "")
    older = put(tmp_path, machine=tensorrt("1"))
    why = f"{older.path.name}: built with TensorRT 1, this is 11.4.0.106"
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, why)


def test_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    older = put(tmp_path)
    newer = put(tmp_path, recipe=Recipe(batch=(1, 1, 1)))
    flip(newer.path)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (older, "")
    older.path.unlink()
    why = f"{newer.path.name}: is damaged: its SHA-256 differs"
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, why)


# The cache as a whole.


def test_all_engines_the_newest_first_then_the_damaged(tmp_path: Path) -> None:
    engines = [put(tmp_path, recipe=Recipe(batch=(1, 1, most))) for most in (3, 1, 4, 2)]
    assert cache.engines(tmp_path) == engines[::-1]
    flip(engines[2].path)
    *whole, damaged = cache.engines(tmp_path)
    assert whole == [engines[3], engines[1], engines[0]]
    assert isinstance(damaged, Damaged)
    assert damaged.path == engines[2].path


def test_what_others_put_there_is_left_alone(tmp_path: Path) -> None:
    engine = put(tmp_path)
    for name in ("notes.txt", "mine.engine", "card-tensorrt-11.4.0.106.timing"):
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / os.fsdecode(b"\xff-fp16-3")).mkdir()
    foreign = {path.name for path in tmp_path.iterdir()} - {engine.path.name}
    assert cache.engines(tmp_path) == [engine]
    assert prune(tmp_path, HERE) == []
    assert whys(prune(tmp_path, HERE, everything=True)) == {engine.path: "all are removed"}
    assert {path.name for path in tmp_path.iterdir()} == foreign


def test_prune_removes_what_is_of_no_use(tmp_path: Path) -> None:
    stays = [
        put(tmp_path),
        put(tmp_path, recipe=Recipe("int8")),
        put(tmp_path, machine=change(A100, tensorrt="1")),
        put(tmp_path, machine=tensorrt("11.3.0.1"), recipe=VERSIONED),
        put(tmp_path, origin=change(ORIGIN, sha256="cd", name="of my own")),
    ]
    old, broken = put(tmp_path, machine=tensorrt("11.3.0.1")), put(tmp_path, recipe=Recipe("fp32"))
    flip(broken.path)
    stale = {old.path: "built with TensorRT 11.3.0.1, this is 11.4.0.106"}
    damaged = {broken.path: "is damaged: its SHA-256 differs"}
    sizes = {path: path.stat().st_size for path in (old.path, broken.path)}
    told = prune(tmp_path, HERE, dry_run=True)
    assert whys(told) == {**stale, **damaged}
    assert {path: size for path, _, size in told} == sizes
    assert len(engines_in(tmp_path)) == 7
    assert whys(prune(tmp_path, None)) == damaged
    assert whys(prune(tmp_path, HERE)) == stale
    assert prune(tmp_path, HERE) == []
    assert engines_in(tmp_path) == {engine.path.name for engine in stays}
    assert len(prune(tmp_path, None, everything=True)) == 5
    assert engines_in(tmp_path) == set()


def test_an_engine_can_be_copied(tmp_path: Path) -> None:
    engine = put(tmp_path)
    copy = Path(shutil.copy(engine.path, tmp_path / "any name"))
    assert read(copy) == change(engine, path=copy)
    with pytest.raises(EngineError, match="not an engine of sketchify-rt"):
        read(Path(__file__))
