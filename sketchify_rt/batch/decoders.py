"""Decodes untrusted files in separate processes. If one hangs or crashes, only its file fails.

The processes run `decode_worker`. The bytes of a file and its pixels go through shared memory
without a name, which is freed when both processes have ended. Everything else goes over a socket,
as pickles. This protects against decoders that fail, not against decoders that are taken over by
an attacker: these have the rights of the user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

from sketchify_rt import forks
from sketchify_rt.batch import decode_worker
from sketchify_rt.batch.decode_worker import TAKEN, FileJob, Job, Reply
from sketchify_rt.errors import BackendUnavailable, DecodeError, DecoderKilled, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.inputs import File, Loaded, Picture
from sketchify_rt.options import Encoding

_START_SECONDS = 60.0  # of which 0.3 are needed where nothing else runs
_END_SECONDS = 5.0  # a coredump can take that long


class Decoders:
    """A pool of such processes. Thread-safe; close it, or use it in a `with`.

    A process is started when a call finds none free, and replaced when it ended or keeps memory
    back. It dies with this one, however that ends. After a fork, the child starts ones of its own.
    """

    def __init__(
        self,
        processes: int,
        timeout: float,
        max_pixels: int,
        memory: int | None = None,
        codec: str = "sketchify_rt.codec.cpu:decode",
        encoding: Encoding | None = None,
    ) -> None:
        """Take the limits; nothing is started yet.

        processes: at most, at least 1; further calls wait for one. timeout: seconds for one file,
        above 0. max_pixels: as in `Options`. memory: MiB that a process may map beyond what it
        starts with, at least 1; None for no limit. codec: "module:function" that decodes, called
        as `codec.cpu.decode` is. encoding: of the
        results, which tells what is kept of a file beside its luma; None for nothing.
        """
        self._processes, self._timeout, self._encoding = processes, timeout, encoding or Encoding()
        self._command = (codec, str(max_pixels), str(memory or 0))
        self._closed = False
        self._reset()
        forks.watch(self, Decoders._forget)

    def _reset(self) -> None:
        self._free = threading.BoundedSemaphore(self._processes)
        self._all: set[_Worker] = set()
        self._idle: list[_Worker] = []  # the last in was used last; its methods are atomic

    def decode(self, image: Loaded) -> Loaded:
        """What an image file holds; other images are given back as they are.

        Raises the DecodeError that the codec raises, or one that tells what became of the process:
        it took too long, or a signal ended it; DecoderKilled where that was SIGKILL.
        Raises BackendUnavailable where none can be started.
        """
        if not isinstance(image, File):
            return image
        job = FileJob(image.name, len(image.data), self._encoding)
        luma, extras = self.run(job, image.data)
        assert luma is not None  # noqa: S101 (the job gives luma)
        return Picture(image.name, luma, extras, image.hint)

    def run(self, job: Job, data: bytes = b"") -> tuple[Gray | None, Any]:
        """What `job` gives, in a process that finds `data` in the shared memory.

        Raises what the job raises, and what `decode` raises.
        """
        with self._free:
            answer = self._run(job, data)
        if isinstance(answer, SketchifyError):
            raise answer
        return answer

    def _run(self, job: Job, data: bytes) -> tuple[Gray | None, Any] | SketchifyError:
        while True:
            worker = self._pop() or self._start()
            try:
                return worker.run(job, data, self._timeout)
            except _Died as death:
                if not death.idle:
                    kind = DecoderKilled if death.status == -signal.SIGKILL else DecodeError
                    return kind(job.name, self._reason(death.status))
            finally:
                if worker.reusable:
                    self._idle.append(worker)
                else:
                    self._end(worker)
                if self._closed:
                    self.close()

    def _start(self) -> _Worker:
        worker = _Worker(self._command)
        self._all.add(worker)
        return worker

    def _pop(self) -> _Worker | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _end(self, worker: _Worker) -> None:
        self._all.discard(worker)
        worker.end()

    def _reason(self, status: int | None) -> str:
        if status is None:
            return f"took longer than {self._timeout:g} s to decode"
        if status == -signal.SIGKILL:
            return "its decoder was killed (SIGKILL), as the system does when memory runs out"
        return f"crashed its decoder ({_ending(status)})"

    def __enter__(self) -> Decoders:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; those that are at a file, when they are done with it."""
        self._closed = True
        while worker := self._pop():
            self._end(worker)

    def _forget(self) -> None:
        """In a forked child, so that no two processes talk to one decoder."""
        for worker in self._all:
            worker.disown()
        self._reset()


class _Died(Exception):
    """A process ended.

    status: as subprocess tells it; None where it is to be ended, being late. idle: whether that was
    after another file and before this one.
    """

    def __init__(self, status: int | None, idle: bool = False) -> None:
        self.status, self.idle = status, idle


class _Worker:
    """One process. reusable: whether it takes another file."""

    def __init__(self, command: tuple[str, ...]) -> None:
        if not hasattr(os, "memfd_create"):
            raise BackendUnavailable(
                "decoding in processes of their own needs Linux: this Python has no "
                "os.memfd_create. Leave out --isolate and --timeout"
            )
        self._link, theirs = Pipe()
        self._memory = os.memfd_create("decoder")
        # Nothing is ever written to it: it ends when this process does.
        lifeline, self._lifeline = os.pipe()
        self.reusable = False
        passed = (theirs.fileno(), self._memory, lifeline)
        try:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-c", _MAIN, *map(str, passed), *command],
                env=os.environ | _ENVIRONMENT | {"PYTHONPATH": _search_path()},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=passed,
                process_group=0,  # Ctrl-C is for the one that has the terminal
            )
        except OSError as error:
            self._close()
            raise BackendUnavailable(
                f"a process for decoding cannot be started: {error.strerror}"
            ) from error
        finally:
            theirs.close()
            os.close(lifeline)
        try:
            self._receive(_START_SECONDS)
        except _Died as death:
            self.end()
            why = "took too long" if death.status is None else _ending(death.status)
            raise BackendUnavailable(
                f"a process for decoding cannot be started: {why}; see its output above"
            ) from None
        except BaseException:
            self.end()
            raise

    def run(
        self, job: Job, data: bytes, timeout: float
    ) -> tuple[Gray | None, Any] | SketchifyError:
        deadline = time.monotonic() + timeout
        kept, self.reusable = self.reusable, False
        decode_worker.put(self._memory, data)
        os.lseek(self._memory, 0, os.SEEK_SET)
        try:
            with contextlib.suppress(OSError):  # it ended, which comes up again
                self._link.send(job)
            reply: Reply = self._receive(deadline - time.monotonic())
        except _Died as death:
            untaken = os.lseek(self._memory, 0, os.SEEK_CUR) < TAKEN
            death.idle = kept and untaken and death.status is not None
            raise
        answer: tuple[Gray | None, Any] | SketchifyError
        if isinstance(reply.answer, SketchifyError):
            answer = reply.answer
        else:
            shape, more = reply.answer
            answer = shape and decode_worker.take(self._memory, shape), more
        self.reusable = not reply.last
        return answer

    def _receive(self, seconds: float) -> Any:
        try:
            if not self._link.poll(max(0, seconds)):
                raise _Died(None)
            return self._link.recv()
        except (EOFError, OSError):
            raise _Died(self._status()) from None

    def _status(self) -> int | None:
        try:
            return self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:  # it has closed the socket, and goes on
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """In a fork: it is not a child of this process."""
        self._process.returncode = 0  # else it would be waited for
        self._close()

    def _close(self) -> None:
        self._link.close()
        os.close(self._memory)
        os.close(self._lifeline)


_MAIN = f"from {decode_worker.__name__} import main; main()"
_ENVIRONMENT = {
    # One thread is all that a decoder has use for; OpenBLAS would map memory for each core.
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # Memory of one file is kept for the next: 3.9 ms for a JPEG of 992 x 1401 instead of 5.7.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def _search_path() -> str:
    """Where this process finds modules; "" is the folder that it is in."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def _ending(status: int) -> str:
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
