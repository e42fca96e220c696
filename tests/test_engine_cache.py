from __future__ import annotations

import dataclasses
import errno
import itertools
import json
import logging
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing.synchronize import Condition
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sketchify_rt.errors import EngineError, OptionsError, OutputError
from sketchify_rt.runtime import engine_cache, engine_record
from sketchify_rt.runtime.engine_cache import (
    Damaged,
    Engine,
    find,
    folder_name,
    last_seconds,
    locked,
    prune,
    read,
    store,
)
from sketchify_rt.runtime.engine_record import Check, Machine, Origin, Recipe, Record, key, unfit

ORIGIN = Origin("lite", "ab" * 32)
RECIPE = Recipe()
HERE = Machine("11.4.0.106", "NVIDIA H200", "9.0")
CHECK = Check(1.25, 0.031, 812.5, 96)
OLD, NEW = b"old plan" * 512, b"new plan" * 512


def put(
    root: Path,
    plan: bytes = OLD,
    *,
    origin: Origin = ORIGIN,
    recipe: Recipe = RECIPE,
    machine: Machine = HERE,
    seconds: float = 61.0,
) -> Engine:
    folder = root / folder_name(origin, recipe, machine)
    with locked(folder):
        return store(folder, plan, origin, recipe, machine, seconds, CHECK)


def change(value: Any, **changes: Any) -> Any:
    return dataclasses.replace(value, **changes)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files(folder: Path) -> set[str]:
    """All but the lock, which some versions of filelock remove when it is released."""
    return names(folder) - {".lock"}


def whys(removed: list[tuple[Path, str, int]]) -> dict[Path, str]:
    return {path: why for path, why, _ in removed}


def flip(path: Path, bit: int = 1000) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


# What is asked for, and the key.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"precision": "fp8"}, "precision is 'fp8'; .* fp16, fp32, int8"),
        ({"tile": (512, 256, 512)}, "tile is 512, 256, 512; .* the least, the best and the most"),
        ({"tile": (0, 256, 512)}, "tile is 0, 256, 512"),
        ({"batch": (1, 32, 16)}, "batch is 1, 32, 16"),
        ({"batch": (0, 1, 1)}, "batch is 0, 1, 1; .* from 1"),
        ({"optimization_level": 6}, "optimization_level is 6; it may be 0 to 5"),
        ({"optimization_level": -1}, "optimization_level is -1"),
        ({"workspace": 0}, "workspace is 0; it must be at least 1 MiB"),
    ],
)
def test_a_recipe_out_of_range_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        Recipe(**changes)


def test_a_recipe_is_static_or_dynamic() -> None:
    assert Recipe().static
    assert not Recipe(tile=(8, 512, 1024)).static
    assert Recipe(optimization_level=0, workspace=1).workspace == 1
    assert Recipe(optimization_level=5).optimization_level == 5


OTHERS: list[dict[str, Any]] = [
    {"origin": change(ORIGIN, sha256="other")},
    *({"machine": change(HERE, **{f.name: "1"})} for f in dataclasses.fields(Machine)),
    {"recipe": Recipe(precision="fp32")},
    {"recipe": Recipe(tile=(256, 512, 512))},
    {"recipe": Recipe(tile=(512, 512, 1024))},
    {"recipe": Recipe(tile=(256, 256, 512))},
    {"recipe": Recipe(batch=(1, 16, 64))},
    {"recipe": Recipe(batch=(1, 8, 32))},
    {"recipe": Recipe(optimization_level=4)},
    {"recipe": Recipe(workspace=1024)},
    {"recipe": Recipe(version_compatible=True)},
    {"recipe": Recipe(hardware_compatible=True)},
]


def test_whatever_changes_gives_another_key() -> None:
    same: dict[str, Any] = {"origin": ORIGIN, "recipe": RECIPE, "machine": HERE}
    keys = [key(**{**same, **other}) for other in [{}, *OTHERS]]
    assert len(set(keys)) == len(keys)
    assert key(change(ORIGIN, name="renamed"), RECIPE, HERE) == keys[0]
    changed = {name for other in OTHERS if "recipe" in other for name in _differs(other["recipe"])}
    assert changed == {field.name for field in dataclasses.fields(Recipe)}


def _differs(recipe: Recipe) -> set[str]:
    return {
        field.name
        for field in dataclasses.fields(Recipe)
        if getattr(recipe, field.name) != getattr(RECIPE, field.name)
    }


def test_another_export_format_gives_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key(ORIGIN, RECIPE, HERE)
    monkeypatch.setattr(engine_record, "EXPORT_FORMAT", engine_record.EXPORT_FORMAT + 1)
    assert key(ORIGIN, RECIPE, HERE) != before


def test_the_same_has_the_same_key_in_another_process() -> None:
    code = f"""
from sketchify_rt.runtime.engine_cache import *
print(key(Origin(**{dataclasses.asdict(ORIGIN)}), Recipe(), Machine(**{dataclasses.asdict(HERE)})))
"""
    for seed in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert result.stdout.strip() == key(ORIGIN, RECIPE, HERE)


def test_a_folder_has_the_name_of_its_model_whatever_that_is() -> None:
    assert re.fullmatch(r"lite-fp16-[0-9a-f]{16}", folder_name(ORIGIN, RECIPE, HERE))
    for name in ("../a/b", "线稿 model", "", "x" * 300, "a\n\0b"):
        folder = folder_name(change(ORIGIN, name=name), RECIPE, HERE)
        assert "/" not in folder and "\0" not in folder and len(folder.encode()) < 255
        assert engine_cache._NAME.fullmatch(folder)


def test_the_cache_is_where_the_environment_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SKETCHIFY_CACHE", "~/of mine")
    assert engine_cache.root() == tmp_path / "of mine" / "engines"
    monkeypatch.setenv("SKETCHIFY_CACHE", "~nobody-of-that-name/cache")
    with pytest.raises(OutputError, match="SKETCHIFY_CACHE is ~nobody-of-that-name/cache: "):
        engine_cache.root()
    monkeypatch.delenv("SKETCHIFY_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert engine_cache.root() == tmp_path / "xdg" / "sketchify-rt" / "engines"


# Writing and reading.


def test_what_is_stored_is_read_again(tmp_path: Path) -> None:
    recipe = Recipe("int8", (8, 512, 1024), (1, 2, 4), 5, 2048, True, True)
    engine = put(tmp_path, recipe=recipe)
    again = read(engine.folder)
    assert again == engine
    assert again.record.recipe == recipe
    assert again.record.plan_bytes == len(OLD)
    assert again.record.seconds == 61.0
    assert again.plan() == OLD
    assert files(engine.folder) == {"engine.json", again.record.plan}
    text = (engine.folder / "engine.json").read_text()
    assert json.loads(text)["machine"]["gpu"] == "NVIDIA H200"
    assert '\n  "machine": {\n    "tensorrt": "11.4.0.106",' in text


def test_an_engine_is_replaced(tmp_path: Path) -> None:
    old = put(tmp_path)
    new = put(tmp_path, NEW)
    assert new.folder == old.folder
    assert new.record.built > old.record.built
    assert read(new.folder).plan() == NEW
    assert files(new.folder) == {"engine.json", new.record.plan}
    assert old.plan() == NEW  # the same engine, built anew after the record was read


def test_an_engine_that_another_has_replaced_is_not_taken_for_it(tmp_path: Path) -> None:
    old = put(tmp_path)
    with locked(old.folder):
        store(old.folder, NEW, ORIGIN, Recipe(precision="fp32"), HERE, 1, CHECK)
    with pytest.raises(Damaged, match="No such file"):
        old.plan()


def decides(engine: Engine) -> tuple[Any, ...]:
    """All of an engine that decides whether it is used, and what TensorRT gets."""
    found = engine.record
    return found.origin.sha256, found.recipe, found.machine, found.plan, engine.plan()


def test_each_flipped_bit_is_found(tmp_path: Path) -> None:
    engine = put(tmp_path, b"the whole plan")
    whole = decides(engine)
    for path in (engine.folder / "engine.json", engine.folder / engine.record.plan):
        data = path.read_bytes()
        for bit in range(len(data) * 8):
            flip(path, bit)
            try:  # in a record what only describes the engine may change, as its speed
                assert decides(read(engine.folder)) == whole
            except Damaged as error:
                assert str(error).startswith(f"{engine.folder}/")
                assert "`sketchify-rt engines prune` removes" in str(error)
            else:
                assert path.name == "engine.json"
            path.write_bytes(data)
        for cut in (b"", data[:-2]):
            path.write_bytes(cut)
            with pytest.raises(Damaged):
                read(engine.folder).plan()
        path.write_bytes(data)
    assert read(engine.folder).plan() == b"the whole plan"


def test_damage_is_told_with_file_and_remedy(tmp_path: Path) -> None:
    engine = put(tmp_path)
    plan = engine.folder / engine.record.plan
    plan.unlink()
    with pytest.raises(Damaged) as caught:
        engine.plan()
    expected = f"{plan}: cannot be read (No such file or directory). `sketchify-rt engines prune`"
    assert str(caught.value).startswith(expected)
    assert caught.value.folder == engine.folder
    assert caught.value.reason == f"{plan.name}: cannot be read (No such file or directory)"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.reason) == (str(caught.value), caught.value.reason)


@pytest.mark.parametrize("what", ["nothing", "empty", "file"])
def test_where_no_engine_is_that_is_told(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "engine"
    if what == "empty":
        folder.mkdir()
    elif what == "file":
        folder.write_bytes(b"")
    with pytest.raises(EngineError, match=f"{folder}: no engine is there, .* build-engine") as e:
        read(folder)
    assert not isinstance(e.value, Damaged)


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record.pop("check"),
        lambda record: record.update(new=1),
        lambda record: record["recipe"].update(new=1),
        lambda record: record.pop("recipe"),
        lambda record: record["recipe"].update(tile=[1, 2]),
        lambda record: record["recipe"].update(batch=[3, 2, 1]),
        lambda record: record["recipe"].update(batch=[1, 16, 33]),
        lambda record: record["recipe"].update(tile="888"),
        lambda record: record["recipe"].update(precision=["fp16"]),
        lambda record: record["recipe"].update(version_compatible=1),
        lambda record: record.update(recipe="fp16"),
        lambda record: record.update(machine="H200"),
        lambda record: record["machine"].update(capability=9.0),
        lambda record: record["machine"].update(gpu="NVIDIA H100"),
        lambda record: record["origin"].update(sha256="cd" * 32),
        lambda record: record["check"].update(largest=None),
        lambda record: record.update(built=2026),
        lambda record: record.update(seconds="61"),
        lambda record: record.update(plan="../../outside.plan"),
        lambda record: record.update(plan="/etc/hostname"),
        lambda record: record.update(plan_sha256="../../outside" + record["plan_sha256"][13:]),
        lambda record: record.update(plan="../../outside.pl.plan", plan_sha256="../../outside.pl"),
        lambda record: record.update(plan_sha256=1),
    ],
)
def test_a_changed_record_is_damaged(tmp_path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    engine = put(tmp_path)
    path = engine.folder / "engine.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(Damaged, match=r"engine\.json: is damaged: "):
        read(engine.folder)


@pytest.mark.parametrize(
    ("number", "got"), [(None, "no export format"), (99, "export format 99")], ids=["old", "newer"]
)
def test_a_record_of_another_version_is_refused_and_pruned(
    tmp_path: Path, number: int | None, got: str
) -> None:
    engine = put(tmp_path)
    path = engine.folder / "engine.json"
    record = json.loads(path.read_text())
    assert record.pop("format") == engine_record.EXPORT_FORMAT
    path.write_text(json.dumps(record if number is None else {**record, "format": number}))
    reason = f"engine.json: is of another version of sketchify-rt: got {got}, expected "
    with pytest.raises(Damaged, match=f"{reason}.*`sketchify-rt build-engine` builds them anew"):
        read(engine.folder)
    found, why = find(tmp_path, ORIGIN, "fp16", HERE)
    assert found is None
    assert why.startswith(f"{engine.folder.name}: {reason}")
    (why,) = whys(prune(tmp_path, None)).values()
    assert why.startswith(reason)
    assert names(tmp_path) == set()


@pytest.mark.parametrize("text", [b"[]", b"1", b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_record_is_told(tmp_path: Path, text: bytes) -> None:
    engine = put(tmp_path)
    (engine.folder / "engine.json").write_bytes(text)
    with pytest.raises(Damaged, match=r"engine\.json: is damaged: expected a JSON object"):
        read(engine.folder)


@pytest.mark.parametrize("there", [False, True], ids=["first", "replacement"])
@pytest.mark.parametrize("at", ["engine.json", "plan"])
def test_a_full_disk_leaves_what_was_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, at: str, there: bool
) -> None:
    folder = tmp_path / folder_name(ORIGIN, RECIPE, HERE)
    if there:
        put(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()} if there else {}
    fsync, calls = os.fsync, itertools.count()
    fails = {"plan": 1, "engine.json": 3}[at]  # folder, plan, folder, record, folder

    def full(descriptor: int) -> None:
        if next(calls) == fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=f"{folder}: .*No space left.*SKETCHIFY_CACHE"):
        put(tmp_path, NEW)
    assert next(calls) > fails
    if there:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    else:
        assert names(tmp_path) == set()


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"engine cannot be written .*; SKETCHIFY_CACHE sets"):
        put(tmp_path / "file")
    with pytest.raises(OutputError, match="engine cannot be written"):
        put(tmp_path / "file" / "engines")
    with pytest.raises(OutputError, match="engine cannot be written"):
        put(Path("/proc/engines"))
    for read_it in engine_cache.engines, lambda root: prune(root, HERE):
        with pytest.raises(OutputError, match=r"the cache cannot be read .Not a directory"):
            read_it(tmp_path / "file")


def test_why_the_right_one_is_of_no_use_is_told_before_others(tmp_path: Path) -> None:
    right = put(tmp_path)
    put(tmp_path, recipe=Recipe(precision="fp32"))
    flip(right.folder / right.record.plan)
    found, why = find(tmp_path, ORIGIN, "fp16", HERE)
    assert found is None
    assert "is damaged" in why and "fp32" not in why


def test_a_folder_without_rights_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    put(tmp_path)  # root may do everything: so it is the system call that refuses

    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", refuse)
        with pytest.raises(OutputError, match=r"cannot be written \(Permission denied"):
            put(tmp_path, NEW)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", refuse)
        with pytest.raises(OutputError, match=r"the cache cannot be read \(Permission denied"):
            engine_cache.engines(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refuse)
        (found,) = engine_cache.engines(tmp_path)
        assert isinstance(found, Damaged)
        assert found.reason == "engine.json: cannot be read (Permission denied)"
    assert find(tmp_path, ORIGIN, "fp16", HERE)[0] is not None


# Who is killed leaves the engine that was there, or the new one.


CHANGES = {"mkdir", "open", "write", "__exit__", "close", "flock", "replace", "unlink", "rmdir"}


def die_at(step: int) -> None:
    """Kills this process before the step-th call of Python's that changes a file or a folder."""
    steps = itertools.count()

    def profile(frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ in CHANGES and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile)


def states(root: Path, start: str, action: str) -> None:
    """Kills a process at each step of an action in turn; tells as JSON what each left behind.

    It runs in an interpreter of its own, since it forks, and torch has threads.
    """
    found = []
    for step in itertools.count():
        cache = root / str(step)
        if start == "engine":
            put(cache)
        pid = os.fork()
        if pid == 0:
            die_at(step)
            put(cache, NEW) if action == "store" else prune(cache, HERE, everything=True)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        folder = cache / folder_name(ORIGIN, RECIPE, HERE)
        try:
            left = read(folder).plan()[:3].decode()
        except Damaged as error:
            left = str(error)
        except EngineError:
            left = "none"
        found.append(left)
        again = put(cache, b"third")
        assert read(folder).plan() == b"third"
        assert files(folder) == {"engine.json", again.record.plan}
        assert prune(cache, HERE) == []
        shutil.rmtree(cache)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            break
    sys.stdout.write(json.dumps(found))


def run_states(root: Path, start: str, action: str) -> list[str]:
    code = f"import test_engine_cache as t; t.states(t.Path({str(root)!r}), {start!r}, {action!r})"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: list[str] = json.loads(result.stdout)
    assert len(found) > 10  # steps
    return found


@pytest.mark.parametrize(
    ("start", "action", "order"),
    [
        ("none", "store", ["none", "new"]),
        ("engine", "store", ["old", "new"]),
        ("engine", "prune", ["old", "none"]),
    ],
)
def test_a_kill_at_any_step_leaves_one_engine_or_the_other(
    tmp_path: Path, start: str, action: str, order: list[str]
) -> None:
    found = run_states(tmp_path, start, action)
    assert [state for state, _ in itertools.groupby(found)] == order


def test_what_a_killed_build_left_is_pruned(tmp_path: Path) -> None:
    engine = put(tmp_path)
    half = [engine.folder / ".0123456789abcdef.part", engine.folder / "0123456789abcdef.plan"]
    lost = tmp_path / "lite-fp32-0123456789abcdef"
    lost.mkdir()
    for path in (*half, lost / ".lock", lost / "0123456789abcdef.plan"):
        path.write_bytes(b"half")
    expected = dict.fromkeys((*half, lost), "left behind by a build that was killed")
    assert whys(prune(tmp_path, None, dry_run=True)) == expected
    assert all(path.exists() for path in expected)
    assert whys(prune(tmp_path, None)) == expected
    assert not any(path.exists() for path in expected)
    assert read(engine.folder).plan() == OLD


def test_files_of_others_beside_an_engine_stay(tmp_path: Path) -> None:
    folder = tmp_path / "of mine"
    folder.mkdir()
    others = {"trtexec.plan", "notes.txt", "0123.plan"}
    for name in others:
        (folder / name).write_bytes(b"mine")
    for plan in OLD, NEW:
        with locked(folder):
            engine = store(folder, plan, ORIGIN, RECIPE, HERE, 1, CHECK)
    assert files(folder) == {*others, "engine.json", engine.record.plan}


# Processes that want the same.


def want(root: Path, arrived: Any, turn: Condition, failures: int, built: Path) -> None:
    """One of many processes: finds the engine or builds it, when all have come."""
    with turn:
        arrived.value += 1
        turn.notify_all()
    folder = root / folder_name(ORIGIN, RECIPE, HERE)
    with locked(folder):
        if find(root, ORIGIN, "fp16", HERE)[0]:
            return
        with turn:
            assert turn.wait_for(lambda: arrived.value == 8, timeout=60)
        with built.open("a") as file:
            file.write("x")
        if len(built.read_text()) > failures:
            store(folder, NEW, ORIGIN, RECIPE, HERE, 1, CHECK)


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
    (engine,) = engine_cache.engines(root)
    assert isinstance(engine, Engine)
    assert engine.plan() == NEW


def test_who_waits_says_so_once_and_can_give_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calls = itertools.count(1)

    def waiting() -> None:
        if next(calls) == 2:
            raise InterruptedError

    folder = tmp_path / "engine"
    with (
        caplog.at_level(logging.INFO, "sketchify_rt"),
        locked(folder),
        pytest.raises(InterruptedError),
        locked(folder, waiting),
    ):
        pass
    assert [record.getMessage() for record in caplog.records] == [
        f"{folder}: another process is building this engine; waiting for it"
    ]


@pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
def test_a_folder_that_vanishes_while_it_is_entered_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: type[OSError]
) -> None:
    """As of a build that failed: there when it is to be made, gone when it is looked at."""
    folder, mkdir, vanishes = tmp_path / "engine", Path.mkdir, [True, True]

    def make(path: Path, **how: Any) -> None:
        if vanishes and vanishes.pop():
            raise error(errno.EEXIST, "as told")
        mkdir(path, **how)

    monkeypatch.setattr(Path, "mkdir", make)
    with locked(folder):
        assert names(folder) == {".lock"}
    assert not vanishes


def test_a_file_or_a_dead_link_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "link"):
        expected = f"{tmp_path / name}: the engine cannot be written .File exists"
        with pytest.raises(OutputError, match=expected), locked(tmp_path / name):
            pass
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_the_lock_of_a_killed_process_holds_nobody(tmp_path: Path) -> None:
    folder = tmp_path / "engine"
    code = f"""
import os, signal
from pathlib import Path
from sketchify_rt.runtime.engine_cache import locked
with locked(Path({str(folder)!r})):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(folder) == {".lock"}

    def waiting() -> None:
        raise AssertionError("nobody holds it")

    with locked(folder, waiting):
        store(folder, NEW, ORIGIN, RECIPE, HERE, 1, CHECK)
    assert read(folder).plan() == NEW


def test_what_is_built_while_prune_looks_stays(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lost = tmp_path / folder_name(ORIGIN, RECIPE, HERE)
    lost.mkdir()
    look, looks = engine_cache._look, itertools.count()

    def built(folder: Path) -> Engine | None:
        found = look(folder)
        if not next(looks):
            put(tmp_path, NEW)
        return found

    monkeypatch.setattr(engine_cache, "_look", built)
    assert prune(tmp_path, HERE) == []
    assert read(lost).plan() == NEW


def test_who_enters_a_folder_while_it_is_removed_keeps_what_he_writes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The lock is the last file to go; whoever comes then has the folder."""
    engine, unlink = put(tmp_path), Path.unlink

    def enters(path: Path, missing_ok: bool = False) -> None:
        unlink(path, missing_ok)
        if path.name == ".lock":
            monkeypatch.undo()
            put(tmp_path, NEW)

    monkeypatch.setattr(Path, "unlink", enters)
    assert len(prune(tmp_path, None, everything=True)) == 1
    assert read(engine.folder).plan() == NEW


def test_a_build_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(EngineError), locked(tmp_path / "engine"):
        raise EngineError("no")
    assert names(tmp_path) == set()


def test_nothing_is_pruned_that_is_being_built(tmp_path: Path) -> None:
    engine = put(tmp_path)
    lost = tmp_path / "lite-fp32-0123456789abcdef"
    locks, done = threading.Event(), threading.Event()

    def hold() -> None:
        with locked(lost), locked(engine.folder):
            (lost / ".0123456789abcdef.part").write_bytes(b"half")
            locks.set()
            done.wait()

    builder = threading.Thread(target=hold)
    builder.start()
    try:
        assert locks.wait(60)
        assert prune(tmp_path, HERE, everything=True) == []
        assert names(lost) == {".lock", ".0123456789abcdef.part"}
    finally:
        done.set()
        builder.join()
    assert set(whys(prune(tmp_path, HERE, everything=True))) == {lost, engine.folder}
    assert names(tmp_path) == set()


# Which engine can be used.


PORTABLE = Recipe(hardware_compatible=True)
VERSIONED = Recipe(version_compatible=True)
UNFIT = [
    # of what it was built, where, asked of what, and why not
    (RECIPE, HERE, {}, None),
    (RECIPE, HERE, {"sha256": "cd" * 32}, "built of other weights of lite"),
    (RECIPE, HERE, {"name": "new", "sha256": "cd"}, "built of the model lite, not new"),
    (RECIPE, HERE, {"name": "renamed"}, None),
    (Recipe("int8"), HERE, {}, "built for int8, not fp16"),
    (
        RECIPE,
        change(HERE, gpu="NVIDIA A100", capability="8.0"),
        {},
        "built for NVIDIA A100 (compute capability 8.0), this is NVIDIA H200 (compute capability 9",
    ),
    (PORTABLE, change(HERE, gpu="NVIDIA A100", capability="8.0"), {}, None),
    (PORTABLE, change(HERE, gpu="NVIDIA B200", capability="10.0"), {}, None),
    (PORTABLE, change(HERE, gpu="NVIDIA T4", capability="7.5"), {}, "built for NVIDIA T4 (compu"),
    (VERSIONED, change(HERE, gpu="NVIDIA A100"), {}, "built for NVIDIA A100 (compute"),
    (
        RECIPE,
        change(HERE, tensorrt="11.3.9.1"),
        {},
        "built with TensorRT 11.3.9.1, this is 11.4.0.106",
    ),
    (VERSIONED, change(HERE, tensorrt="11.3.9.1"), {}, None),
    (VERSIONED, change(HERE, tensorrt="10.16.1.2"), {}, None),
    (VERSIONED, change(HERE, tensorrt="11.4.0.107"), {}, "built with TensorRT 11.4.0.107, this"),
    (VERSIONED, change(HERE, tensorrt="11.10.0.1"), {}, "built with TensorRT 11.10.0.1, this is"),
    (VERSIONED, change(HERE, tensorrt="9.3.0.1"), {}, "built with TensorRT 9.3.0.1, this is"),
    (VERSIONED, change(HERE, tensorrt="12.0.0.1"), {}, "built with TensorRT 12.0.0.1, this is"),
    (PORTABLE, change(HERE, tensorrt="11.3.9.1"), {}, "built with TensorRT 11.3.9.1, this is"),
    (
        RECIPE,
        change(HERE, tensorrt="11.3.9.1", gpu="NVIDIA A100"),
        {"sha256": "cd"},
        "built of other weights of lite; built with TensorRT 11.3.9.1, this is 11.4.0.106; built f",
    ),
]


def record(recipe: Recipe, machine: Machine) -> Record:
    return Record(1, "a key", ORIGIN, recipe, machine, "a.plan", "a", 1, "", 1, CHECK)


@pytest.mark.parametrize(("recipe", "machine", "asked", "why"), UNFIT)
def test_an_engine_fits_or_the_reason_is_told(
    recipe: Recipe, machine: Machine, asked: dict[str, str], why: str | None
) -> None:
    reason = unfit(record(recipe, machine), change(ORIGIN, **asked), "fp16", HERE)
    assert (reason and reason[: len(why or "")]) == why


def test_the_newest_that_fits_is_found(tmp_path: Path) -> None:
    put(tmp_path)
    newest = put(tmp_path, recipe=Recipe(batch=(1, 1, 1)))
    put(tmp_path, recipe=Recipe("int8"))
    put(tmp_path, machine=change(HERE, gpu="NVIDIA A100"))
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (newest, "")


def test_one_of_this_gpu_is_found_before_one_that_also_runs_here(tmp_path: Path) -> None:
    elsewhere = change(HERE, gpu="NVIDIA A100", capability="8.0")
    own = put(tmp_path)
    portable = put(tmp_path, recipe=PORTABLE, machine=elsewhere)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (own, "")
    shutil.rmtree(own.folder)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (portable, "")


def test_where_none_fits_the_nearest_tells_why(tmp_path: Path) -> None:
    assert find(tmp_path / "none", ORIGIN, "fp16", HERE) == (None, "")
    put(tmp_path, origin=change(ORIGIN, name="other", sha256="cd"))
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, "")
    near = put(tmp_path, machine=change(HERE, tensorrt="1"))
    put(tmp_path, machine=change(HERE, tensorrt="1", gpu="NVIDIA L4"))
    why = f"{near.folder.name}: built with TensorRT 1, this is 11.4.0.106"
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (None, why)


@pytest.mark.parametrize("file", ["plan", "engine.json"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, file: str) -> None:
    older = put(tmp_path)
    newer = put(tmp_path, recipe=Recipe(batch=(1, 1, 1)))
    path = newer.folder / (newer.record.plan if file == "plan" else file)
    flip(path)
    assert find(tmp_path, ORIGIN, "fp16", HERE) == (older, "")
    shutil.rmtree(older.folder)
    found, why = find(tmp_path, ORIGIN, "fp16", HERE)
    assert found is None
    assert why.startswith(f"{newer.folder.name}: {path.name}: is damaged")


def test_one_whose_plan_is_replaced_meanwhile_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    put(tmp_path)
    look = engine_cache.engines

    def replaced(root: Path) -> Any:
        found = look(root)
        put(tmp_path, NEW)
        return found

    monkeypatch.setattr(engine_cache, "engines", replaced)
    engine, _ = find(tmp_path, ORIGIN, "fp16", HERE)
    assert engine is not None
    assert engine.plan() == NEW


def test_the_estimate_is_of_the_last_build_of_the_kind(tmp_path: Path) -> None:
    assert last_seconds(tmp_path, "lite", RECIPE, HERE) is None
    put(tmp_path, seconds=10)
    put(tmp_path, seconds=20, recipe=Recipe(optimization_level=5))
    put(tmp_path, seconds=30, machine=change(HERE, gpu="NVIDIA A100"))
    put(tmp_path, seconds=40, origin=change(ORIGIN, name="other"))
    assert last_seconds(tmp_path, "lite", RECIPE, HERE) == 10
    assert last_seconds(tmp_path, "lite", Recipe(optimization_level=5), HERE) == 20
    assert last_seconds(tmp_path, "lite", Recipe(batch=(1, 1, 1)), HERE) is None
    assert last_seconds(tmp_path, "lite", RECIPE, change(HERE, tensorrt="11.5")) == 10
    put(tmp_path, seconds=50, machine=change(HERE, tensorrt="11.5"))
    assert last_seconds(tmp_path, "lite", RECIPE, HERE) == 50
    assert last_seconds(tmp_path, "none", RECIPE, HERE) is None


# The cache as a whole.


def test_all_engines_the_newest_first_then_the_damaged(tmp_path: Path) -> None:
    engines = [put(tmp_path, recipe=Recipe(batch=(1, 1, most))) for most in (3, 1, 4, 2)]
    assert engine_cache.engines(tmp_path) == engines[::-1]
    flip(engines[2].folder / "engine.json")
    *whole, damaged = engine_cache.engines(tmp_path)
    assert whole == [engines[3], engines[1], engines[0]]
    assert isinstance(damaged, Damaged)
    assert damaged.folder == engines[2].folder


def test_what_others_put_there_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "cache"
    engine = put(root)
    outside = put(tmp_path / "outside", recipe=Recipe("fp32")).folder
    flip(outside / "engine.json")
    (root / "notes.txt").write_text("mine")
    (root / "mine").mkdir()
    (root / "mine" / "engine.json").write_text("{}")
    (root / "lite-fp16-0000000000000000").write_text("a file with our name")
    (root / outside.name).symlink_to(outside)
    (root / "lite-fp16-1111111111111111").symlink_to(root / "nowhere")
    (root / "lite-fp16-2222222222222222").symlink_to("lite-fp16-2222222222222222")
    (root / "card-tensorrt-11.4.0.106.timing").write_bytes(b"measured")
    (root / os.fsdecode(b"\xff-fp16-3")).mkdir()
    foreign = names(root) - {engine.folder.name}
    assert engine_cache.engines(root) == [engine]
    assert prune(root, HERE) == []
    assert whys(prune(root, HERE, everything=True)) == {engine.folder: "all are removed"}
    assert names(root) == foreign
    assert files(outside) == {"engine.json", f"{engine.record.plan}"}
    assert (root / "mine" / "engine.json").exists()


def test_prune_removes_what_is_of_no_use(tmp_path: Path) -> None:
    stays = [
        put(tmp_path),
        put(tmp_path, recipe=Recipe("int8")),
        put(tmp_path, machine=change(HERE, gpu="NVIDIA A100", tensorrt="1")),
        put(tmp_path, machine=change(HERE, tensorrt="11.3.0.1"), recipe=VERSIONED),
        put(tmp_path, origin=change(ORIGIN, sha256="cd", name="of my own")),
    ]
    stale = {
        put(tmp_path, machine=change(HERE, tensorrt="11.3.0.1")).folder: (
            "built with TensorRT 11.3.0.1, this is 11.4.0.106"
        ),
    }
    plan = put(tmp_path, recipe=Recipe("fp32"))
    flip(plan.folder / plan.record.plan)
    sidecar = put(tmp_path, recipe=Recipe("fp32", (64, 64, 64)))
    (sidecar.folder / "engine.json").write_bytes(b"{")
    broken = {
        plan.folder: f"{plan.record.plan}: is damaged: its SHA-256 is not that of the record",
        sidecar.folder: "engine.json: is damaged: expected a JSON object (Expecting property name "
        "enclosed in double quotes: line 1 column 2 (char 1))",
    }
    assert whys(prune(tmp_path, HERE, dry_run=True)) == {**stale, **broken}
    assert len(names(tmp_path)) == 8
    assert whys(prune(tmp_path, None)) == broken
    assert whys(prune(tmp_path, HERE)) == stale
    assert prune(tmp_path, HERE) == []
    assert names(tmp_path) == {engine.folder.name for engine in stays}
    assert all(read(engine.folder).plan() == OLD for engine in stays)
    assert len(prune(tmp_path, None, everything=True)) == 5
    assert names(tmp_path) == set()


def test_what_cannot_be_removed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine = put(tmp_path)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        with pytest.raises(OutputError, match=f"{engine.folder}: it cannot be removed .Permission"):
            prune(tmp_path, HERE, everything=True)
    other, unlink = put(tmp_path, recipe=Recipe("int8")), Path.unlink

    def refuse_some(path: Path, missing_ok: bool = False) -> None:
        if path.parent == engine.folder:
            refuse()
        unlink(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse_some)
    with pytest.raises(OutputError, match=f"{engine.folder}: it cannot be removed"):
        prune(tmp_path, HERE, everything=True)
    assert not other.folder.exists()  # one that stays does not keep the rest
    assert engine.plan() == OLD


def test_prune_tells_the_bytes_and_writes_nothing_where_nothing_is_to_go(tmp_path: Path) -> None:
    engine = put(tmp_path)
    (engine.folder / ".lock").unlink(missing_ok=True)
    assert prune(tmp_path, HERE) == []
    assert not (engine.folder / ".lock").exists()
    (engine.folder / ".0123456789abcdef.part").write_bytes(b"half")
    assert prune(tmp_path, HERE) == [
        (engine.folder / ".0123456789abcdef.part", "left behind by a build that was killed", 4)
    ]
    bytes_of = sum(path.stat().st_size for path in engine.folder.iterdir())
    assert [size for *_, size in prune(tmp_path, HERE, everything=True)] == [bytes_of]
