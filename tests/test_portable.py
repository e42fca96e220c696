"""What not every system has is looked for where it is used, and done without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import picture, saved

import sketchify_rt
from sketchify_rt import BackendUnavailable, Encoding
from sketchify_rt.batch import decoders

# Other libraries are imported first: they may need these names, and choose by the system.
WITHOUT_POSIX = """
import multiprocessing.connection, os, signal, subprocess, sys, tempfile
import PIL.Image, click, cv2, filelock, isal, numpy, openvino, platformdirs, tqdm

sys.path.insert(0, __TESTS__)
for name in (
    "O_ASYNC O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK fork forkpty getegid geteuid "
    "getgid getloadavg getpgid getuid killpg memfd_create posix_fadvise posix_fallocate pread "
    "preadv pwrite pwritev register_at_fork sched_getaffinity sched_setaffinity setsid statvfs "
    "sysconf"
).split():
    if hasattr(os, name):
        delattr(os, name)
for name in "SIGALRM SIGHUP SIGIO SIGKILL SIGPIPE SIGUSR1 alarm".split():
    delattr(signal, name)
for name in "fcntl grp pwd resource termios tty".split():
    sys.modules[name] = None
"""


def run(code: str, tmp_path: Path) -> list[str]:
    before = WITHOUT_POSIX.replace("__TESTS__", repr(str(Path(__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", before + code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_module_is_imported_without_posix_names(tmp_path: Path) -> None:
    package = Path(sketchify_rt.__file__).parent
    modules = [
        ".".join(path.relative_to(package.parent).with_suffix("").parts)
        for path in sorted(package.rglob("*.py"))
        if not path.name.startswith("__")
    ]
    code = f"""
import importlib
import sketchify_rt

needs_more = "torch onnx triton numba nvidia tensorrt av pypdfium2 ray pyarrow".split()
for name in needs_more:
    sys.modules[name] = None
for module in {modules}:
    try:
        importlib.import_module(module)
        print(module)
    except (ImportError, sketchify_rt.BackendUnavailable) as error:
        assert any(name in str(error) for name in needs_more), (module, error)
"""
    imported = run(code, tmp_path)
    for name in (
        "sketchifier",
        "pipeline",
        "cli.verbs",
        "inputs",
        "backend.cpu",
        "batch.decode_worker",
        "integrations.triton_server",
    ):
        assert f"sketchify_rt.{name}" in imported


def test_pictures_are_converted_without_posix_names(tmp_path: Path) -> None:
    (tmp_path / "page.png").write_bytes(saved(picture(), "PNG"))
    code = """
from sketchify_rt import Sketchifier
from sketchify_rt.cli import verbs
print(*Sketchifier(mode="dodge")("page.png").shape)
verbs.main(["convert", "page.png", "-o", "out", "--mode", "dodge"], standalone_mode=False)
"""
    assert len(run(code, tmp_path)[:2]) == 2
    assert (tmp_path / "out" / "page.png").stat().st_size > 100


def test_isolation_without_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "memfd_create")
    job = decoders.FileJob("a.png", 1, Encoding())
    refused = pytest.raises(BackendUnavailable, match=r"needs Linux: .* Leave out --isolate")
    with decoders.Decoders(1, 60, 10**6) as pool, refused:
        pool.run(job, b"x")
