from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import FILES, NOISE, bomb, picture, png_file, saved
from PIL import Image

from sketchify_rt import Encoding, Sketchifier
from sketchify_rt.batch import decoders
from sketchify_rt.batch.decoders import Decoders
from sketchify_rt.codec import cpu
from sketchify_rt.errors import BackendUnavailable, DecodeError
from sketchify_rt.image import Gray
from sketchify_rt.inputs import File, Picture

MAX_PIXELS = 10**8
PATIENCE = 60.0  # seconds a file, on a machine that is busy
CORPUS = Path(__file__).parent / "fuzz" / "corpus" / "files"
_leaked: list[bytes] = []


def trouble(file: File, max_pixels: int) -> Gray:
    """A codec that does what the file says: "WORD [ARGUMENT]", or "at FIFO WORD [ARGUMENT]".

    It opens a FIFO before it begins, which the test waits for.
    """
    words = file.data.decode()
    if words.startswith("at "):
        _, fifo, words = words.split(" ", 2)
        Path(fifo).write_bytes(b"")
    word, _, argument = words.partition(" ")
    match word:
        case "pid":
            return np.frombuffer(os.getpid().to_bytes(8), np.uint8)[None]
        case "sleep":
            time.sleep(float(argument))
        case "wait":  # for the test to open another FIFO
            Path(argument).read_bytes()
        case "spin":  # with the GIL
            sum(1 for _ in iter(int, 1))
        case "signal":
            os.kill(os.getpid(), int(argument))
        case "exit":
            os._exit(int(argument))
        case "take":
            np.ones(int(argument), np.uint8)
        case "leak":
            _leaked.append(b"x" * int(argument))
    return np.zeros((1, 1), np.uint8)


def troubled(processes: int = 1, timeout: float = PATIENCE, memory: int | None = None) -> Decoders:
    return Decoders(processes, timeout, MAX_PIXELS, memory, f"{__name__}:trouble")


def decode(pool: Decoders, file: File) -> Gray:
    picture = pool.decode(file)
    assert isinstance(picture, Picture)
    assert picture.name == file.name
    return picture.luma


def tell(pool: Decoders, words: str) -> Gray:
    return decode(pool, File("a.png", words.encode()))


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def pid(pool: Decoders) -> int:
    return int.from_bytes(tell(pool, "pid").tobytes())


def alive(number: int) -> bool:
    """Zombies do not count."""
    try:
        status = Path(f"/proc/{number}/stat").read_text(encoding="utf-8")
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone(*pids: int, within: float = 20) -> bool:
    end = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(alive, pids))


def listing() -> tuple[int, set[Path]]:
    """Open files of this process, and what lies in shared memory under a name."""
    return len(list(Path("/proc/self/fd").iterdir())), set(Path("/dev/shm").iterdir())


@pytest.fixture(autouse=True, scope="module")
def quick_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.freeze()  # what the other modules of the suite have imported: 0.2 s a time
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    gc.collect()
    before = listing()
    yield
    gc.collect()
    assert listing() == before


@pytest.fixture(scope="module")
def real() -> Iterator[Decoders]:
    with Decoders(1, PATIENCE, MAX_PIXELS) as pool:
        decode(pool, File("a", FILES["PNG"]))  # has its file descriptors from now on
        yield pool


def outcome(decode: object, *arguments: object) -> object:
    try:
        return decode(*arguments)  # type: ignore[operator]
    except DecodeError as error:
        return type(error), error.source, error.reason, str(error)


@pytest.mark.parametrize("form", [*FILES, *(path.name for path in sorted(CORPUS.iterdir()))])
def test_all_files_are_decoded_as_in_this_process(real: Decoders, form: str) -> None:
    data = FILES[form] if form in FILES else (CORPUS / form).read_bytes()
    name = "f\u00fc\udc80.png"  # a name that is not UTF-8
    expected = outcome(cpu.decode, File(name, data), MAX_PIXELS)
    result = outcome(decode, real, File(name, data))
    if not isinstance(expected, np.ndarray):
        assert result == expected
        return
    assert isinstance(result, np.ndarray)
    np.testing.assert_array_equal(result, expected)
    assert (result.dtype, result.flags.c_contiguous, result.flags.writeable) == (np.uint8, True, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4099), (4097, 1), (513, 3), (7, 1025), (4000, 5003)])
def test_odd_and_large_sizes(real: Decoders, shape: tuple[int, int]) -> None:
    gray = (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 251).astype(np.uint8)
    np.testing.assert_array_equal(decode(real, File("a", saved(gray, "PNG"))), gray)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_what_the_encoding_keeps_comes_along(form: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a page"  # ImageDescription
    data = saved(NOISE, form, exif=exif, lossless=True)
    sketchify = Sketchifier(mode="dodge", device="cpu", threads=1)
    plain = sketchify.encode(File("a", data))
    for encoding in (
        Encoding(metadata=True),
        Encoding(alpha="keep"),
        Encoding(alpha="lines"),
        Encoding("webp", None, True),
    ):
        with Decoders(1, PATIENCE, MAX_PIXELS, encoding=encoding) as pool:
            result = sketchify.encode(pool.decode(File("a", data)), encoding)
        assert result == sketchify.encode(File("a", data), encoding) != plain


def test_what_is_no_file_needs_no_decoding(real: Decoders) -> None:
    drawn = Picture("page 1", picture())
    assert real.decode(drawn) is drawn


def test_max_pixels_is_that_of_the_pool(real: Decoders) -> None:
    with pytest.raises(DecodeError, match="60000 x 50000 = 3000000000 pixels, over the limit of"):
        decode(real, File("a.png", bomb("PNG")))
    with Decoders(1, PATIENCE, 12) as pool:
        assert decode(pool, File("a", saved(np.zeros((3, 4), np.uint8), "PNG"))).shape == (3, 4)
        with pytest.raises(DecodeError, match="over the limit of 12"):
            decode(pool, File("a", saved(np.zeros((1, 13), np.uint8), "PNG")))


def test_results_are_their_own(real: Decoders) -> None:
    black, white = (saved(np.full((5, 6), level, np.uint8), "PNG") for level in (0, 255))
    first = decode(real, File("a", black))
    assert (decode(real, File("b", white)) == 255).all()
    assert (first == 0).all()


def test_a_process_is_kept_and_has_the_codec_alone() -> None:
    with troubled() as pool:
        assert pid(pool) == pid(pool) != os.getpid()
    with Decoders(1, PATIENCE, MAX_PIXELS) as pool:
        decode(pool, File("a", FILES["PNG"]))
        (worker,) = pool._all
        maps = Path(f"/proc/{worker._process.pid}/maps").read_text(encoding="utf-8")
        assert "cv2" in maps
        assert not {name for name in ("openvino", "torch", "_native") if name in maps}
        threads = list(Path(f"/proc/{worker._process.pid}/task").iterdir())
    assert len(threads) == 1
    assert gone(worker._process.pid, within=0)


@pytest.mark.parametrize("words", ["sleep 1000", "spin"])
def test_a_file_that_hangs_fails_in_time_and_the_next_is_decoded(words: str) -> None:
    with troubled(timeout=0.7) as pool:
        while True:  # until this machine is quick enough
            with contextlib.suppress(DecodeError):
                first = pid(pool)
                break
        start = time.monotonic()
        with pytest.raises(DecodeError) as caught:
            tell(pool, words)
        seconds = time.monotonic() - start
        assert str(caught.value) == "a.png: took longer than 0.7 s to decode"
        assert caught.value.source == "a.png"
        assert 0.7 <= seconds < 0.7 + 3
        assert gone(first, within=0)
    with troubled() as pool:
        assert tell(pool, "sleep 0.2").shape == (1, 1)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("signal 11", "crashed its decoder (SIGSEGV)"),
        ("signal 6", "crashed its decoder (SIGABRT)"),
        ("signal 9", "its decoder was killed (SIGKILL), as the system does when memory runs out"),
        ("exit 3", "crashed its decoder (exit code 3)"),
        ("exit 0", "crashed its decoder (exit code 0)"),
    ],
)
def test_a_file_that_crashes_the_decoder_fails_alone(words: str, reason: str) -> None:
    with troubled() as pool:
        first = pid(pool)
        with pytest.raises(DecodeError) as caught:
            tell(pool, words)
        assert caught.value.reason == reason
        assert pid(pool) != first


def test_a_decoder_killed_while_idle_costs_no_file() -> None:
    with troubled() as pool:
        for _ in range(3):
            os.kill(pid(pool), signal.SIGKILL)
            assert tell(pool, "nothing").shape == (1, 1)


def test_a_decoder_killed_at_work_costs_its_file(fifo: Path) -> None:
    with troubled() as pool, ThreadPoolExecutor(1) as thread:
        number = pid(pool)
        file = thread.submit(tell, pool, f"at {fifo} sleep 1000")
        fifo.read_bytes()
        os.kill(number, signal.SIGKILL)
        with pytest.raises(DecodeError, match="SIGKILL"):
            file.result()
        assert tell(pool, "").shape == (1, 1)


def test_memory_is_bounded() -> None:
    with troubled(memory=200) as pool:
        first = pid(pool)
        assert tell(pool, f"take {150 << 20}").shape == (1, 1)
        with pytest.raises(DecodeError, match=r"^a.png: needs more memory than its"):
            tell(pool, f"take {250 << 20}")
        assert pid(pool) == first
    data = png_file(np.zeros((10_000, 10_000, 1), np.uint8), 8, 0)
    # The rest of it is for modules that Python compiles when they are imported for the first time.
    with Decoders(1, PATIENCE, MAX_PIXELS, memory=80) as pool:
        with pytest.raises(DecodeError, match="memory"):
            decode(pool, File("a.png", data))
        np.testing.assert_array_equal(decode(pool, File("b", saved(picture(), "PNG"))), picture())


def test_a_decoder_that_keeps_memory_back_is_replaced() -> None:
    with troubled() as pool:
        first = pid(pool)
        tell(pool, f"take {400 << 20}")
        assert pid(pool) == first  # it gave that back
        tell(pool, f"leak {100 << 20}")
        assert pid(pool) == first
        assert tell(pool, f"leak {200 << 20}").shape == (1, 1)
        assert pid(pool) != first
        assert gone(first)


def test_signals_to_all_are_the_parents_business() -> None:
    with troubled() as pool:
        first = pid(pool)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(first, number)
        assert pid(pool) == first
        assert os.getpgid(first) != os.getpgrp()  # Ctrl-C goes to the group of the terminal


def test_an_interrupt_ends_the_decoder_at_work(fifo: Path) -> None:
    def interrupt() -> None:
        fifo.read_bytes()
        os.kill(os.getpid(), signal.SIGINT)

    with troubled() as pool:
        first = pid(pool)
        threading.Thread(target=interrupt).start()
        with pytest.raises(KeyboardInterrupt):
            tell(pool, f"at {fifo} sleep 1000")
        assert gone(first, within=0)
        assert tell(pool, "").shape == (1, 1)


def test_threads_share_the_processes() -> None:
    pictures = [picture(50 + i, 70, seed=i) for i in range(6)]
    files = [File(str(i), saved(gray, "PNG")) for i, gray in enumerate(pictures)]

    with Decoders(2, PATIENCE, MAX_PIXELS) as pool:

        def right(i: int) -> bool:
            if i % 10 == 3:
                with pytest.raises(DecodeError, match=f"^{i}: is empty$"):
                    decode(pool, File(str(i), b""))
            assert len(pool._all) <= 2
            return np.array_equal(decode(pool, files[i % 6]), pictures[i % 6])

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(right, range(120)))
        assert 1 <= len(pool._all) <= 2


def test_close_while_a_file_is_at_work_leaves_no_process(fifo: Path, tmp_path: Path) -> None:
    pool = troubled()
    first = pid(pool)
    closed = tmp_path / "closed"
    os.mkfifo(closed)
    with ThreadPoolExecutor(1) as thread:
        file = thread.submit(tell, pool, f"at {fifo} wait {closed}")
        fifo.read_bytes()
        pool.close()
        closed.write_bytes(b"")
        assert file.result().shape == (1, 1)
    assert gone(first, within=0)


def test_a_fork_has_decoders_of_its_own() -> None:
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_decoders import alive, pid, tell, troubled
pool = troubled(2)
first = pid(pool)
child = os.fork()
if child == 0:
    signal.alarm(120)  # rather than hang
    second = pid(pool)
    pool.close()
    os._exit(0 if second != first and alive(first) and not alive(second) else 1)
assert all(pid(pool) == first for _ in range(100))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pid(pool) == first
pool.close()
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("words", ["nothing", "sleep 1000", "spin"])
def test_the_decoders_die_with_a_parent_that_is_killed(words: str, fifo: Path) -> None:
    code = f"""
import sys, threading
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_decoders import pid, tell, troubled
pool = troubled(1)
print(pid(pool), flush=True)
threading.Thread(target=tell, args=(pool, {f"at {fifo} {words}"!r})).start()
threading.Event().wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        number = int(parent.stdout.readline())
        fifo.read_bytes()
        assert alive(number)
        parent.kill()
    assert gone(number, within=5)


def test_a_codec_that_cannot_be_imported_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    pool = Decoders(1, PATIENCE, MAX_PIXELS, codec="no_such_module:decode")
    with pytest.raises(BackendUnavailable, match="cannot be started: exit code 1; see its output"):
        decode(pool, File("a", FILES["PNG"]))
    assert "No module named 'no_such_module'" in capfd.readouterr().err
    assert not pool._all


def test_a_process_that_never_gets_ready_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_START_SECONDS", 0.001)
    pool = Decoders(1, PATIENCE, MAX_PIXELS)
    with pytest.raises(BackendUnavailable, match="cannot be started: took too long"):
        decode(pool, File("a", FILES["PNG"]))


def test_modules_are_not_taken_from_the_folder_that_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cv2.py").write_text("raise SystemExit('not this one')", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with Decoders(1, PATIENCE, MAX_PIXELS) as pool:
        assert decode(pool, File("a", FILES["PNG"])).shape == (30, 40)
