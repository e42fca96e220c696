"""Actors of a cluster, as the engine of the runner."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pickle
import threading
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.cluster.connect import connect, import_ray, share
from sketchify_rt.errors import BackendUnavailable, SketchifyError
from sketchify_rt.options import MAX_WORKERS, Encoding, Options

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded

log = logging.getLogger("sketchify_rt")

_TRIES = 3
_PATIENCE = 30.0  # seconds without an actor until the user is told what is waited for


class RayEngine:
    """Actors of a cluster, as the engine of the runner. Thread-safe; to be closed, or in a `with`.

    A call whose actor ended, by itself or with its machine, is made again, three times in all. The
    last time the actor has nothing else to do, and its images come one by one: so an image that
    ends its actors fails, and no other with it.

    batch: images that go together; workers: threads that keep all actors busy; local: whether the
    cluster was started on this machine, for this alone.
    """

    def __init__(
        self, options: Options, address: str | None = None, actors: int | None = None
    ) -> None:
        """Connect, and start the actors; returns once one of them is ready.

        options: of each actor. It has a GPU of its own where the cluster has GPUs and the device is
        not "cpu", and else `threads` processors, 1 if None. address: "auto", "ray://host:10001" or
        "host:port"; None for RAY_ADDRESS, or else for a cluster on this machine that ends with
        `close`; Ray as it is where it was started before. actors: None for all there is room for.

        Raises BackendUnavailable where Ray is not installed, or the cluster cannot be reached or
        lacks what the options ask for, and what an actor raises: OptionsError, ModelError,
        BackendUnavailable, EngineError, DeviceMemoryError.
        """
        threads = options.threads or 1
        ray = self._ray = import_ray()
        self._started = not ray.is_initialized()
        self.local = self._started and connect(ray, address, threads * (actors or 0))
        try:
            options, resources, room = share(ray.cluster_resources(), options)
            self._options = dataclasses.replace(options, model=_found(options.model))
            self._remote = ray.remote(_Worker).options(max_concurrency=MAX_WORKERS, **resources)
            self._change = threading.Condition()
            self._actors: set[Any] = set()
            self._calls: dict[Any, int] = {}  # in work, by each actor that is ready
            self._alone = 0  # calls that wait for an actor that has no other
            self._left = count = actors or room  # actors that are ready, or will be
            self._broken: Exception = BackendUnavailable("ray: the engine is closed")
            self._closed = False
            self.batch = self._lanes = 1
            for _ in range(count):
                self._start()
            self._release(*self._take(alone=False))
        except BaseException:
            self.close()
            raise
        # As many again read and write meanwhile.
        self.workers = 2 * self._lanes * count

    def prepare(self, workers: int) -> None:
        """Nothing is left to do."""

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        """See `Sketchifier.encode_batch`.

        An image that ended each of its actors has a BackendUnavailable in its place.
        """
        for _ in range(_TRIES - 1):
            if (results := self._once(images, encoding)) is not None:
                return results
        return [self._last(image, encoding) for image in images]

    def _last(self, image: Loaded, encoding: Encoding) -> bytes | Exception:
        if results := self._once([image], encoding, alone=True):
            return results[0]
        return BackendUnavailable(
            f"each of {_TRIES} actors ended with it; has a machine too little memory for it, or "
            "does it make a decoder crash?"
        )

    def _once(
        self, images: Sequence[Loaded], encoding: Encoding, alone: bool = False
    ) -> list[bytes | Exception] | None:
        """None where the actor ended."""
        errors = self._ray.exceptions
        actor, calls = self._take(alone)
        try:
            results: list[bytes | Exception] = self._ray.get(actor.convert.remote(images, encoding))
            return results
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError:
            self._end(actor)
            return None
        finally:
            self._release(actor, calls)

    def _take(self, alone: bool) -> tuple[Any, int]:
        """An actor with time for one more call, or with none; and how many it now has more."""

        def free() -> Any:
            if not self._left:
                raise copy(self._broken)  # one for all would keep the images of all its tracebacks
            least = min(self._calls, key=self._calls.__getitem__, default=None)
            if least is None or (self._alone and not alone):
                return None
            return least if self._calls[least] < (1 if alone else self._lanes) else None

        with self._change:
            self._alone += alone
            try:
                while not (actor := self._change.wait_for(free, _PATIENCE)):
                    if not self._calls:
                        log.warning("ray: waiting for room in the cluster; no actor could start")
            finally:
                self._alone -= alone
            calls = self._lanes if alone else 1
            self._calls[actor] += calls
            return actor, calls

    def _release(self, actor: Any, calls: int) -> None:
        with self._change:
            if actor in self._calls:
                self._calls[actor] -= calls
            self._change.notify_all()

    def _end(self, actor: Any) -> None:
        """An actor that is of no use any more; another takes its place."""
        with self._change:
            if self._calls.pop(actor, None) is not None:
                self._start()
        self._kill(actor)

    def _kill(self, actor: Any) -> None:
        with self._change:
            self._actors.discard(actor)
        with contextlib.suppress(Exception):
            self._ray.kill(actor)

    def _start(self) -> None:
        threading.Thread(target=self._open, name="sketchify-actor", daemon=True).start()

    def _open(self) -> None:
        """Waits until an actor is ready, which takes as long as the cluster has no room for it."""
        for _ in range(_TRIES):
            actor = None
            try:
                with self._change:
                    if self._closed:
                        return
                    actor = self._remote.remote()
                    self._actors.add(actor)
                lanes, batch = self._ray.get(actor.open.remote(self._options))
            except Exception as error:
                self._kill(actor)
                broken = getattr(error, "cause", None)
                reason = broken or BackendUnavailable(f"ray: no actor can start: {error}")
                if broken is not None:
                    break
            else:
                with self._change:
                    self._calls[actor] = 0
                    self._lanes, self.batch = lanes, batch
                    self._change.notify_all()
                return
        with self._change:
            if self._closed:
                return
            self._left -= 1
            self._broken = reason
            self._change.notify_all()
            if self._left:
                log.warning("ray: an actor could not start, going on without: %s", reason)

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the actors, and leave the cluster, unless Ray was started before."""
        if hasattr(self, "_change"):
            with self._change:
                self._closed = True
                self._left = 0
                self._calls.clear()
            for actor in list(self._actors):
                self._kill(actor)
        if self._started:
            self._ray.shutdown()


class _Worker:
    """What an actor of `RayEngine` is. Opened by a call: of what a constructor raises, Ray hands on
    no more than a text."""

    def open(self, options: Options) -> tuple[int, int]:
        """Calls to be made at the same time, and images in each."""
        self._sketcher = SketchActor(**vars(options))
        return self._sketcher.lanes, self._sketcher.sketchify.batch

    def convert(self, images: Sequence[Loaded], encoding: Encoding) -> list[bytes | Exception]:
        results = self._sketcher.convert(images, encoding)
        return [_portable(result) for result in results]


def _found(model: str) -> str:
    """The model as actors find it, whose current folder is another."""
    return str(Path(model).absolute()) if model.endswith(".onnx") else model


def _portable(result: bytes | Exception) -> bytes | Exception:
    """The result; in the place of an error that another process could not read, one of its text."""
    if isinstance(result, bytes):
        return result
    try:
        copy: Exception = pickle.loads(pickle.dumps(result))  # noqa: S301 (its own)
        return copy
    except Exception:
        return SketchifyError(f"{type(result).__name__}: {result}")
