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
from sketchify_rt.batch.decode_worker import TAKEN, Answer, FileJob, Job
from sketchify_rt.errors import BackendUnavailable, DecodeError, DecoderKilled, SketchifyError
from sketchify_rt.image import Gray
from sketchify_rt.inputs import File, Loaded, Picture
from sketchify_rt.options import Encoding

_START_SECONDS = 60.0  # of which 0.3 are needed where nothing else runs
_END_SECONDS = 5.0  # a coredump can take that long


class Decoders:
    """A pool of processes. Thread-safe. Close it, or use it in a `with`.

    A process is started when a call finds none free. It is replaced when it has ended or has grown.
    It ends with this process, even if this is killed. After a fork, the child starts its own.
    """

    def __init__(
        self,
        processes: int,
        timeout: float,
        max_pixels: int,
        memory: int | None = None,
        codec: str = "sketchify_rt.codec.cpu:decode",
        encoding: Encoding | None = None,
        colours: bool = False,
    ) -> None:
        """Starts nothing yet.

        Args:
            processes: Maximum number, at least 1. Further calls wait.
            timeout: Maximum seconds for a file or a page, above 0.
            max_pixels: As in `Options`.
            memory: MiB that a process may map beyond what it starts with, at least 1; None for no
                limit.
            codec: "module:function" that decodes, like `codec.cpu.decode`.
            encoding: Of the results. It tells what of a file is needed besides its luma. None for
                nothing.
            colours: Whether the colours of files are needed, too.
        """
        self._colours = colours
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
        """Decodes an image file. Other images are returned as they are.

        Raises:
            DecodeError: The codec raised it, or its process took too long or crashed.
            DecoderKilled: SIGKILL ended the process.
            BackendUnavailable: No process can be started.
        """
        if not isinstance(image, File):
            return image
        job = FileJob(image.name, len(image.data), self._encoding, self._colours)
        luma, extras = self.run(job, image.data)
        assert luma is not None  # noqa: S101 (the job gives luma)
        return Picture(image.name, luma, extras, image.hint)

    def run(self, job: Job, data: bytes = b"") -> tuple[Gray | None, Any]:
        """Runs a job in a process.

        Args:
            job: What to do.
            data: What the job finds in the shared memory.

        Returns:
            What `job.run` returns.

        Raises:
            SketchifyError: What `job.run` raises, and what `decode` raises.
        """
        with self._free:
            while True:
                worker = self._pop() or _Worker(self._command)
                self._all.add(worker)
                try:
                    return worker.run(job, data, self._timeout)
                except _Died as death:
                    if not death.idle:
                        kind = DecoderKilled if death.status == -signal.SIGKILL else DecodeError
                        raise kind(job.name, self._reason(death.status)) from None
                finally:
                    if worker.reusable:
                        self._idle.append(worker)
                    else:
                        self._end(worker)
                    if self._closed:
                        self.close()

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
        """Ends the processes. Those that decode a file finish it first."""
        self._closed = True
        while worker := self._pop():
            self._end(worker)

    def _forget(self) -> None:
        """Called in a forked child, so that no two processes use one decoder."""
        for worker in self._all:
            worker.disown()
        self._reset()


class _Died(Exception):
    """A process has ended, or is late and has to be ended.

    Attributes:
        status: Exit status as in subprocess; None if it is late.
        idle: It ended before it took this job.
    """

    def __init__(self, status: int | None, idle: bool = False) -> None:
        self.status, self.idle = status, idle


class _Worker:
    """One process.

    Attributes:
        reusable: Whether it takes another job.
    """

    def __init__(self, command: tuple[str, ...]) -> None:
        if not hasattr(os, "memfd_create"):
            raise BackendUnavailable(
                "decoding in processes of their own needs Linux: this Python has no "
                "os.memfd_create. Leave out --isolate and --timeout"
            )
        self._link, theirs = Pipe()
        self._memory = os.memfd_create("decoder")
        # Nothing is written to this pipe. It closes when this process ends.
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
                process_group=0,  # Ctrl-C reaches this process alone, which decides what to do
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

    def run(self, job: Job, data: bytes, timeout: float) -> tuple[Gray | None, Any]:
        """Runs a job. Raises _Died, and what the job raises."""
        deadline = time.monotonic() + timeout
        answer: Answer
        kept, self.reusable = self.reusable, False
        decode_worker.put(self._memory, data)
        os.lseek(self._memory, 0, os.SEEK_SET)
        try:
            with contextlib.suppress(OSError):  # it has ended, which `_receive` tells
                self._link.send(job)
            answer, last = self._receive(deadline - time.monotonic())
        except _Died as death:
            untaken = os.lseek(self._memory, 0, os.SEEK_CUR) < TAKEN
            death.idle = kept and untaken and death.status is not None
            raise
        if isinstance(answer, SketchifyError):
            self.reusable = not last
            raise answer
        shape, more = answer
        luma = shape and decode_worker.take(self._memory, shape)
        self.reusable = not last
        return luma, more

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
        except subprocess.TimeoutExpired:  # it has closed the socket and still runs
            return None

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._close()

    def disown(self) -> None:
        """Lets go of the process in a fork, which is not its parent."""
        self._process.returncode = 0  # else it would be waited for
        self._close()

    def _close(self) -> None:
        self._link.close()
        os.close(self._memory)
        os.close(self._lifeline)


_MAIN = f"from {decode_worker.__name__} import main; main()"
_ENVIRONMENT = {
    # A decoder uses one thread. OpenBLAS would map memory for each core.
    "OPENBLAS_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # Memory of one file is kept for the next: a JPEG of 992 x 1401 takes 3.9 ms rather than 5.7.
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}


def _search_path() -> str:
    """Returns where this process finds modules. "" in sys.path is the current folder."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def _ending(status: int) -> str:
    return f"exit code {status}" if status >= 0 else signal.Signals(-status).name
