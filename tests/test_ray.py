"""A real cluster on this machine: two workers, and room for those of single tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from click.testing import CliRunner, Result
from jobs import output
from pictures import FILES, picture, saved

from sketchify_rt import cluster
from sketchify_rt.batch.item import Item
from sketchify_rt.batch.output import Output
from sketchify_rt.batch.runner import Outcome, run
from sketchify_rt.cli.verbs import main
from sketchify_rt.cluster import ActorPool, SketchActor
from sketchify_rt.cluster.pool import _portable
from sketchify_rt.errors import (
    BackendUnavailable,
    DecodeError,
    ModelError,
    SketchifyError,
)
from sketchify_rt.inputs import File, Loaded, Picture
from sketchify_rt.options import Encoding, Options
from sketchify_rt.sketchifier import Sketchifier

# Ray Data sets options of its own that it calls outdated.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

# One thread as in the actors: with another number of them the last bits of sums may differ.
OPTIONS = Options(threads=1, device="cpu")
GOOD = saved(picture(), "PNG")
BAD = GOOD[: len(GOOD) // 2]


class Poison(File):
    """A file that ends the process that it is sent to."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (1,)


@pytest.fixture(scope="module")
def plain() -> Iterator[Sketchifier]:
    with Sketchifier(**vars(OPTIONS)) as sketchify:
        yield sketchify


@pytest.fixture(scope="module")
def two() -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level=40
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def pool(two: None) -> Iterator[ActorPool]:
    with ActorPool(OPTIONS, actors=2) as pool:
        yield pool


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Output]:
    to = output(tmp_path / "out")
    to.open()
    with closing(to):
        yield to


def items(files: dict[str, Any], folder: Path) -> list[Item]:
    """Files in a new folder, or what they are read as."""
    folder.mkdir()
    made = []
    for place, (name, data) in enumerate(files.items()):
        path = folder / f"{name}.png"
        path.write_bytes(data if isinstance(data, bytes) else b"")
        load = None if isinstance(data, bytes) else lambda data=data: data
        made.append(Item(place, path, f"{name}.png", load=load))
    return made


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("[!.]*")}


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


def test_the_actor_class_takes_files_and_gives_files(plain: Sketchifier) -> None:
    actor = SketchActor(Encoding("webp"), threads=2, device="cpu")
    files = np.array([GOOD, BAD, *FILES.values()], object)
    names = np.array(["/a.png", "/b.png", *FILES], object)
    rows = actor({"bytes": files, "path": names, "page": np.arange(len(files))})
    assert rows.keys() == {"sketch", "error", "path", "page"}
    assert list(rows["path"]) == list(names)
    assert list(rows["page"]) == list(range(len(files)))
    with pytest.raises(DecodeError) as caught:
        plain.encode(BAD)
    assert rows["sketch"][1] is None
    assert list(rows["error"]) == ["", caught.value.reason] + [""] * len(FILES)
    for place in {*range(len(files))} - {1}:
        assert rows["sketch"][place] == plain.encode(files[place], Encoding("webp"))


def test_the_actor_class_needs_no_names(plain: Sketchifier) -> None:
    rows = SketchActor(**vars(OPTIONS))({"bytes": np.array([GOOD], object)})
    assert list(rows["sketch"]) == [plain.encode(GOOD)]


def test_the_actor_class_maps_a_dataset(two: None, plain: Sketchifier, tmp_path: Path) -> None:
    files = {f"{i}.png": saved(picture(seed=i), "PNG") for i in range(5)} | {"5.png": BAD}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    pages = ray.data.read_binary_files(str(tmp_path), include_paths=True)
    ray.data.DataContext.get_current().enable_progress_bars = False
    sketches = pages.map_batches(
        SketchActor,
        fn_constructor_kwargs={"threads": 1, "device": "cpu"},
        compute=ray.data.ActorPoolStrategy(size=1),
        num_cpus=1,
        batch_size=4,
    )
    rows = {Path(row["path"]).name: row for row in sketches.iter_rows()}
    assert rows.keys() == files.keys()
    assert rows.pop("5.png")["error"] != ""
    for name, row in rows.items():
        assert (row["sketch"], row["error"]) == (plain.encode(files[name]), "")


def test_a_folder_of_a_cloud_becomes_another(two: None, plain: Sketchifier, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/a.png").write_bytes(GOOD)
    (tmp_path / "in/sub/a.jpg").write_bytes(FILES["JPEG"])
    (tmp_path / "in/sub/bad.png").write_bytes(BAD)
    (tmp_path / "in/notes.txt").write_bytes(b"no picture")
    source, out = tmp_path / "in", tmp_path / "out"
    # pyarrow knows the one, fsspec the other
    rows = cluster.convert_dataset(f"file://{source}", f"local://{out}", device="cpu")
    told = {row["output"]: (row["source"], row["status"], row["reason"] != "") for row in rows}
    assert told == {
        "a.png.png": (str(source / "a.png"), "converted", False),
        "sub/a.jpg.png": (str(source / "sub/a.jpg"), "converted", False),
        "sub/bad.png.png": (str(source / "sub/bad.png"), "failed", True),
    }
    made = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert made == {"a.png.png", "sub/a.jpg.png"}
    assert (out / "a.png.png").read_bytes() == plain.encode(GOOD)
    assert (out / "sub/a.jpg.png").read_bytes() == plain.encode(FILES["JPEG"])


def test_results_and_errors_keep_their_places(pool: ActorPool, plain: Sketchifier) -> None:
    luma = picture(seed=7)
    images: list[Loaded] = [File("a", GOOD), File("b", BAD), luma, Picture("c", luma)]
    first, error, third, fourth = pool.encode_batch(images, Encoding("jpg"))
    assert first == plain.encode(GOOD, Encoding("jpg"))
    assert third == fourth == plain.encode(luma, Encoding("jpg"))
    assert isinstance(error, DecodeError)
    assert error.source == "b"
    lines = Encoding(alpha="lines")
    assert pool.encode_batch([File("a", GOOD)], lines) == [plain.encode(GOOD, lines)]
    assert (pool.batch, pool.workers, pool.local) == (1, 4, False)


def test_a_killed_worker_costs_nothing(
    pool: ActorPool, plain: Sketchifier, folder: Output, tmp_path: Path
) -> None:
    files = {f"{i:02}": saved(picture(seed=i), "PNG") for i in range(60)}
    killed: list[int] = []

    def kill(outcome: Outcome) -> None:
        if outcome.index in (10, 30):
            actor = next(iter(pool._calls))
            killed.append(ray.get(actor.__ray_call__.remote(lambda self: os.getpid())))
            os.kill(killed[-1], signal.SIGKILL)

    todo = items(files, tmp_path / "in")
    report = run(pool, todo, folder, Encoding(), workers=pool.workers, progress=kill)
    assert (report.converted, report.failed) == (60, [])
    assert len({*killed}) == 2
    assert tree(folder.root) == {f"{name}.png": plain.encode(data) for name, data in files.items()}
    for item in todo:
        record = folder.journal.get(item.key)
        assert record is not None
        assert (record.status, record.source) == ("converted", b"../in/%b" % item.key)


def test_a_file_that_ends_its_actors_is_named(
    pool: ActorPool, plain: Sketchifier, folder: Output, tmp_path: Path
) -> None:
    files: dict[str, Any] = dict.fromkeys("abcdef", GOOD) | {"c": Poison("c", b"")}
    todo = items(files, tmp_path / "in")
    report = run(pool, todo, folder, Encoding(), workers=pool.workers)
    assert report.converted == 5
    assert [(bad.source.name, bad.reason) for bad in report.failed] == [
        (
            "c.png",
            "3 actors ended during its conversion. Use machines with more memory; if the image "
            "makes a decoder crash, remove it",
        )
    ]
    record = folder.journal.get(b"c.png")
    assert record is not None
    assert (record.status, record.lasting) == ("failed", False)
    assert tree(folder.root) == {f"{name}.png": plain.encode(GOOD) for name in "abdef"}


def test_a_batch_with_such_a_file_is_taken_apart(pool: ActorPool, plain: Sketchifier) -> None:
    results = pool.encode_batch([File("a", GOOD), Poison("b", b"")], Encoding())
    assert results[0] == plain.encode(GOOD)
    assert isinstance(results[1], BackendUnavailable)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (Options(model="/gone.onnx"), ModelError),
        (Options(device="cuda:1"), BackendUnavailable),
        (Options(device="cuda"), BackendUnavailable),
        (Options(threads=5), BackendUnavailable),
    ],
)
def test_what_no_actor_can_do_is_told(
    two: None, options: Options, error: type[SketchifyError]
) -> None:
    with pytest.raises(error) as caught, ActorPool(options, actors=1):
        pass
    assert type(caught.value) is error
    assert ray.is_initialized()


def test_errors_that_do_not_travel_become_text() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    told = _portable(Odd(1, 2))
    assert type(told) is SketchifyError
    assert str(told) == "Odd: 1 and 2"
    assert _portable(b"data") == b"data"


def test_the_command_line_goes_on_where_it_was(
    two: None, plain: Sketchifier, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for seed in range(6):
        (source / f"{seed}.png").write_bytes(saved(picture(seed=seed), "PNG"))
    (source / "bad.png").write_bytes(BAD)
    first = call(source, "-o", out, "--ray", "--ray-actors", 1)
    assert first.exit_code == 1
    assert first.stdout.startswith("converted 6, skipped 0, failed 1 in ")
    assert tree(out) == {f"{seed}.png": plain.encode(source / f"{seed}.png") for seed in range(6)}
    again = call(source, "-o", out, "--ray", "--ray-actors", 1)
    assert again.stdout.startswith("converted 0, skipped 6, failed 1 in ")
    without = call(source, "-o", out)  # the journal is the same
    assert without.stdout.startswith("converted 0, skipped 6, failed 1 in ")


def test_a_cluster_of_its_own_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    command = [sys.executable, "-m", "sketchify_rt", "convert", "a.png", "-o", "out"]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [*command, "--ray", "--ray-actors", "1", "--mode", "dodge"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("converted 1, skipped 0, failed 0 in ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "out"]
    assert (tmp_path / "out/a.png").read_bytes() == Sketchifier(mode="dodge").encode(GOOD)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were not started."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:9", "127.0.0.1:9", "127.0.0.1:port"])
def test_a_cluster_out_of_reach_is_named(away: None, tmp_path: Path, address: str) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    out = tmp_path / "out"
    result = call(tmp_path / "a.png", "-o", out, "--ray", "--ray-address", address)
    assert result.exit_code == 2
    assert f"no Ray cluster at {address}: " in result.stderr
    assert "Start one with `ray start --head`" in result.stderr
    assert not out.exists()


def test_ray_not_installed(away: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "a.png").write_bytes(GOOD)
    result = call(tmp_path / "a.png", "-o", tmp_path / "out", "--ray")
    assert result.exit_code == 2
    assert "To fix: pip install 'sketchify-rt[ray]'" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ray-actors", 2), "need --ray"),
        (("--ray-address", "auto"), "need --ray"),
        (("--ray", "--isolate"), "cannot be used with --isolate, or for one picture"),
        (("--ray", "-o", "a.jpg"), "cannot be used with --isolate, or for one picture"),
    ],
)
def test_what_does_not_go_together(tmp_path: Path, arguments: tuple[Any, ...], told: str) -> None:
    page = tmp_path / "a.png"
    page.write_bytes(GOOD)
    result = call(page, "-o", tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr
    assert list(tmp_path.iterdir()) == [page]
