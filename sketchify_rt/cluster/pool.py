"""A pool of actors on a cluster, which converts for the runner of `sketchify_rt.batch`."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import socket
import threading
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sketchify_rt.cluster.actor import SketchActor
from sketchify_rt.errors import BackendUnavailable, SketchifyError
from sketchify_rt.options import MAX_WORKERS, Encoding, Options

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded

log = logging.getLogger("sketchify_rt")

_TIMEOUT = 5.0  # seconds in which the machine of an address must answer
_TRIES = 3
_PATIENCE = 30.0  # seconds without a ready actor, until the user is told


class ActorPool(contextlib.AbstractContextManager["ActorPool"]):
    """A pool of actors. Thread-safe; call `close` at the end, or use `with`.

    If an actor ends during a call, another actor replaces it, and the call is made again, three
    times in all. The last time its images go one by one to an actor that has no other call. So an
    image that makes actors crash fails alone.

    Attributes:
        batch: Number of images of a call.
        workers: Number of threads that keep all actors busy.
        local: Whether this pool started a cluster on this machine.
    """

    def __init__(
        self, options: Options, address: str | None = None, actors: int | None = None
    ) -> None:
        """Connects and starts the actors. Returns when the first of them is ready.

        Args:
            options: Options of each actor. An actor has a GPU of its own if the cluster has GPUs
                and the device is not "cpu"; else it has `threads` processors, 1 if None.
            address: "auto", "ray://HOST:PORT" or "HOST:PORT". None for RAY_ADDRESS, or else for a
                cluster on this machine, which ends with `close`. Ignored if Ray is connected.
            actors: Number of actors; None for as many as fit into the cluster.

        Raises:
            OptionsError: The options cannot be used together.
            ModelError: An actor cannot read the model.
            BackendUnavailable: Ray is not installed, or the cluster cannot be reached or has not
                enough resources, or an actor cannot use the device or the runtime.
            EngineError: An actor cannot use the TensorRT engine.
            DeviceMemoryError: The model does not fit into the memory of a GPU.
        """
        ray = self._ray = import_ray()
        self._change = threading.Condition()
        self._calls: dict[Any, float] = {}  # running, by actor; infinite of one that is starting
        self._alone = 0  # calls that wait for an actor without any other call
        self._broken: Exception = BackendUnavailable("the pool of Ray actors is closed")
        self.batch = self._lanes = 1
        self._started = not ray.is_initialized()
        processors = (options.threads or 1) * (actors or 0)
        self.local = self._started and _connect(ray, address, processors)
        try:
            options, resources, room = _share(ray.cluster_resources(), options)
            if options.model.endswith(".onnx"):  # actors have another working folder
                options = dataclasses.replace(options, model=str(Path(options.model).absolute()))
            self._options = options
            self._remote = ray.remote(_Worker).options(max_concurrency=MAX_WORKERS, **resources)
            actors = actors or room
            for _ in range(actors):
                self._start(_TRIES)
            self.encode_batch([], Encoding())  # waits for an actor
        except BaseException:
            self.close()
            raise
        self.workers = 2 * self._lanes * actors  # half of them read and write meanwhile

    def prepare(self, workers: int) -> None:
        """Does nothing: the actors are prepared."""

    def encode_batch(
        self, images: Sequence[Loaded], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        """Converts a batch, see `Sketchifier.encode_batch`.

        Args:
            images: The images.
            encoding: Format of the sketches.

        Returns:
            A result for each image. BackendUnavailable for one that ended each of its actors.

        Raises:
            BackendUnavailable: No actor is left.
            SketchifyError: An actor cannot open the model.
        """
        for _ in range(_TRIES - 1):
            if (results := self._call(images, encoding)) is not None:
                return results
        return [self._last(image, encoding) for image in images]

    def _last(self, image: Loaded, encoding: Encoding) -> bytes | Exception:
        if results := self._call([image], encoding, alone=True):
            return results[0]
        return BackendUnavailable(
            f"{_TRIES} actors ended during its conversion. Use machines with more memory; if the "
            "image makes a decoder crash, remove it"
        )

    def _call(
        self, images: Sequence[Loaded], encoding: Encoding, alone: bool = False
    ) -> list[bytes | Exception] | None:
        """Returns None if the actor ended."""
        errors = self._ray.exceptions
        count = MAX_WORKERS if alone else 1  # leaves no room for other calls
        actor = self._take(count, alone)
        try:
            results: list[bytes | Exception] = self._ray.get(actor.convert.remote(images, encoding))
            return results
        except errors.RayTaskError as error:
            raise error.cause from None
        except errors.RayError:
            self._replace(actor, _TRIES)
            return None
        finally:
            with self._change:
                if actor in self._calls:
                    self._calls[actor] -= count
                self._change.notify_all()

    def _take(self, count: int, alone: bool) -> Any:
        """Waits for an actor that has time, and counts `count` calls of it."""

        def free() -> Any:
            if not self._calls:
                raise copy(self._broken)  # shared by threads, it would keep all their tracebacks
            actor = min(self._calls, key=self._calls.__getitem__)
            limit = 1 if alone else 0 if self._alone else self._lanes
            return actor if self._calls[actor] < limit else None

        with self._change:
            self._alone += alone
            try:
                while not (actor := self._change.wait_for(free, _PATIENCE)):
                    if min(self._calls.values()) == math.inf:
                        log.warning("Ray has no room for an actor yet: waiting for the cluster")
            finally:
                self._alone -= alone
            self._calls[actor] += count
            return actor

    def _start(self, tries: int) -> None:
        actor = self._remote.remote()
        self._calls[actor] = math.inf
        threading.Thread(target=self._open, args=(actor, tries), daemon=True).start()

    def _open(self, actor: Any, tries: int) -> None:
        """Waits until an actor is ready, which may take long if the cluster has no room."""
        errors = self._ray.exceptions
        try:
            lanes, batch = self._ray.get(actor.open.remote(self._options))
        except errors.RayTaskError as error:
            self._replace(actor, 0, error.cause)
        except Exception as error:  # RayError, or that of a lost connection
            reason = BackendUnavailable(f"Ray cannot start an actor: {error}")
            self._replace(actor, tries - 1, reason)
        else:
            with self._change:
                self._lanes, self.batch = lanes, batch
                if actor in self._calls:
                    self._calls[actor] = 0
                self._change.notify_all()

    def _replace(self, actor: Any, tries: int, reason: Exception | None = None) -> None:
        """Starts another actor in place of one that ended. Without tries left, goes on without."""
        with self._change:
            if self._calls.pop(actor, None) is None:
                return  # another thread was first
            if tries:
                self._start(tries)
            elif reason:
                self._broken = reason
                if self._calls:
                    log.warning("a Ray actor could not start, continuing without it: %s", reason)
            self._change.notify_all()
        self._ray.kill(actor)

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the actors. Disconnects from the cluster if the constructor connected to it."""
        with self._change:
            actors, self._calls = self._calls, {}
            self._change.notify_all()
        for actor in actors:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


class _Worker:
    """An actor. It is opened by a call, since Ray keeps only the text of a constructor's errors."""

    def open(self, options: Options) -> tuple[int, int]:
        """Returns the number of calls at the same time, and of images in a call."""
        self._actor = SketchActor(**vars(options))
        return self._actor.lanes, self._actor.sketchify.batch

    def convert(self, images: Sequence[Loaded], encoding: Encoding) -> list[bytes | Exception]:
        return [_portable(r) for r in self._actor.sketchify.encode_batch(images, encoding)]


def _portable(result: bytes | Exception) -> bytes | Exception:
    """Replaces an error by its text, if it may not survive pickling."""
    if isinstance(result, (bytes, SketchifyError, MemoryError)):
        return result
    return SketchifyError(f"{type(result).__name__}: {result}")


def import_ray() -> Any:
    """Imports Ray.

    Returns:
        The module.

    Raises:
        BackendUnavailable: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # sends nothing unless the user asks
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"Ray is not installed ({error}). To fix: pip install 'sketchify-rt[ray]'"
        ) from error
    return ray


def _connect(ray: Any, address: str | None, processors: int) -> bool:
    """Connects, or starts a cluster of so many processors, 0 for all. Returns whether it started.

    Raises BackendUnavailable if the cluster cannot be reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    size = {"num_cpus": processors or Options().thread_count, "include_dashboard": False}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        # Without this check Ray tries for minutes, and then ends the process.
        host, colon, port = address.rpartition("://")[2].partition(":")
        if colon:
            socket.create_connection((host, int(port)), _TIMEOUT).close()
        ray.init(address=address, **quiet, **(size if local else {}))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"no Ray cluster at {address}: {reason}. Start one with `ray start --head`, or leave "
            "the address out to use this machine"
        ) from error
    return local


def _share(available: dict[str, float], options: Options) -> tuple[Options, dict[str, float], int]:
    """Returns the options and the resources of an actor, and how many fit into a cluster.

    Raises BackendUnavailable if none does.
    """
    processors, gpus = int(available.get("CPU", 0)), int(available.get("GPU", 0))
    on_gpu = options.of_gpu or options.device.startswith("cuda")
    if gpus and options.device != "cpu":
        threads = options.threads or max(1, processors // gpus)
        return dataclasses.replace(options, threads=threads), {"num_gpus": 1}, gpus
    threads = options.threads or 1
    if on_gpu or processors < threads:
        needed = (
            "a GPU; or use --device cpu" if on_gpu else f"{threads} CPUs; or use fewer --threads"
        )
        raise BackendUnavailable(
            f"the Ray cluster is too small: got {processors} CPUs and {gpus} GPUs, each actor "
            f"needs {needed}"
        )
    options = dataclasses.replace(options, device="cpu", threads=threads)
    return options, {"num_cpus": threads}, processors // threads
