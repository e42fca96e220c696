"""One `Sketchifier` in several threads, and in processes made by every means there is."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import picture

from sketchify_rt import Sketchifier

BEGIN = f"""
import multiprocessing, os, signal, sys, threading
import numpy as np
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pictures import picture
from sketchify_rt import Sketchifier
from sketchify_rt.errors import BackendUnavailable

PAGES = [picture(70 + 30 * i, 90 + 50 * i, seed=i) for i in range(4)]

def fork(work):
    '''The exit code of a child that does it: 0 done, 7 refused for the fork.'''
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(100)  # rather than hang
            work()
            code = 0
        except BackendUnavailable as error:
            code = 7 if "forked" in str(error) else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def same(results, expected):
    return all(map(np.array_equal, results, expected)) and len(results) == len(expected)

def convert_all(sketchify, expected):
    assert same([sketchify(page) for page in PAGES], expected)
"""


def run(tmp_path: Path, code: str) -> list[str]:
    script = tmp_path / "script.py"
    body = textwrap.indent(textwrap.dedent(code), "    ")
    script.write_text(f'{BEGIN}\nif __name__ == "__main__":\n{body}', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, check=False, timeout=400
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("mode", ["sketch", "dodge", "binary"])
def test_eight_threads_get_what_one_gets(mode: str) -> None:
    pages = [picture(50 + 37 * i, 80 + 53 * i, seed=i) for i in range(5)]
    with Sketchifier(mode=mode, threads=2) as alone:
        expected = [alone(page) for page in pages]
    with Sketchifier(mode=mode, threads=2) as sketchify, ThreadPoolExecutor(8) as threads:
        for prepared in (False, True):
            if prepared:
                sketchify.prepare(2)
            results = threads.map(sketchify, pages * 8)
            for result, right in zip(results, expected * 8, strict=True):
                np.testing.assert_array_equal(result, right)


def test_forked_before_its_first_use_it_works(tmp_path: Path) -> None:
    code = """
    sketchify, other = Sketchifier(threads=2), Sketchifier(threads=2)
    print(fork(lambda: [sketchify(page) for page in PAGES]))
    print(fork(lambda: list(sketchify.map(PAGES, workers=2))))
    print(fork(lambda: fork(lambda: sketchify(PAGES[0])) == 0 or 1 / 0))
    """
    assert run(tmp_path, code) == ["0", "0", "0"]


BEFORE = {
    "call": "sketchify(PAGES[0])",
    "map": "list(sketchify.map(PAGES, workers=2))",
    "closed": "sketchify(PAGES[0]); sketchify.close()",
    "deleted": "sketchify(PAGES[0]); sketchify = Sketchifier(threads=2)",
}


@pytest.mark.parametrize("before", BEFORE)
def test_forked_after_its_first_use_it_tells_why_it_cannot_go_on(
    tmp_path: Path, before: str
) -> None:
    code = f"""
    sketchify = Sketchifier(threads=2)
    expected = [sketchify(page) for page in PAGES]
    {BEFORE[before]}
    print(fork(lambda: sketchify(PAGES[0])))
    print(fork(lambda: list(sketchify.map(PAGES, workers=2))))
    print(fork(lambda: os._exit(fork(lambda: sketchify(PAGES[0])))))
    convert_all(sketchify, expected)
    """
    assert run(tmp_path, code) == ["7", "7", "7"]


@pytest.mark.parametrize("mode", ["dodge", "binary"])
def test_the_filters_alone_survive_any_fork(tmp_path: Path, mode: str) -> None:
    code = f"""
    sketchify = Sketchifier(mode={mode!r}, threads=2)
    expected = list(sketchify.map(PAGES, workers=2))
    print(fork(lambda: convert_all(sketchify, expected)))
    print(fork(lambda: list(sketchify.map(PAGES, workers=2))))
    convert_all(sketchify, expected)
    """
    assert run(tmp_path, code) == ["0", "0"]


@pytest.mark.parametrize(("mode", "codes"), [("sketch", {"7"}), ("dodge", {"0"})])
def test_forked_while_threads_convert_nothing_hangs(
    tmp_path: Path, mode: str, codes: set[str]
) -> None:
    code = f"""
    sketchify = Sketchifier(mode={mode!r}, threads=2)
    expected = [sketchify(page) for page in PAGES]
    sketchify.prepare(2)
    over = threading.Event()
    def work():
        while not over.is_set():
            convert_all(sketchify, expected)
    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(8):
        print(fork(lambda: convert_all(sketchify, expected)))
    over.set()
    for thread in threads:
        thread.join()
    """
    results = run(tmp_path, code)
    assert len(results) == 8
    assert set(results) == codes


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("used", [False, True])
def test_multiprocessing(tmp_path: Path, method: str, used: bool) -> None:
    code = f"""
    expected = [Sketchifier(threads=1)(page) for page in PAGES] if {used} else None
    sketchify = Sketchifier(threads=1)
    try:
        with multiprocessing.get_context({method!r}).Pool(2) as pool:
            results = pool.map_async(sketchify, PAGES).get(120)
        print("done")
    except BackendUnavailable as error:
        print("refused" if "forked" in str(error) else error)
    else:
        expected = expected or [sketchify(page) for page in PAGES]
        print(same(results, expected))
    """
    refused = used and method == "fork"
    assert run(tmp_path, code) == (["refused"] if refused else ["done", "True"])


def test_a_lock_that_a_thread_holds_is_free_in_a_fork(tmp_path: Path) -> None:
    code = """
    from sketchify_rt import forks
    lock, held, done = forks.Lock(), threading.Event(), threading.Event()
    seen = []
    class Owner:
        pass
    owner, gone = Owner(), Owner()
    forks.watch(owner, lambda _: seen.append(os.getpid()))
    forks.watch(gone, lambda _: seen.append("gone"))
    del gone
    def hold():
        with lock:
            held.set()
            done.wait()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    def work():
        with lock:
            assert seen == [os.getpid()]
    print(fork(work))
    done.set()
    thread.join()
    assert seen == []
    """
    assert run(tmp_path, code) == ["0"]
