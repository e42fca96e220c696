"""Many machines: the way of an image, from decoding to encoding, in actors of Ray (`ray` extra).

`SketchActor` is for pipelines of Ray Data, `RayEngine` for the runner: reading, writing and the
journal stay where it runs. `convert_dataset` takes a folder of a cloud to another one; there the
workers read and write as well. https://docs.ray.io
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import pickle
import secrets
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from sketchify_rt import inputs, stream
from sketchify_rt.batch.runner import explain
from sketchify_rt.batch.sources import ENDINGS
from sketchify_rt.engine import Sketchifier
from sketchify_rt.errors import BackendUnavailable, OptionsError, SketchifyError
from sketchify_rt.options import MAX_WORKERS, Encoding, Options

if TYPE_CHECKING:
    from sketchify_rt.inputs import Loaded

log = logging.getLogger("sketchify_rt")

_TRIES = 3
_PATIENCE = 30.0  # seconds without an actor until the user is told what is waited for
_CONNECT = 5.0  # seconds for the machine of the address to answer


class SketchActor:
    """One process of a cluster, with the model open: files in, sketches out.

    >>> import ray
    >>> from sketchify_rt.cluster import SketchActor
    >>> pages = ray.data.read_binary_files("s3://bucket/pages", include_paths=True)
    >>> sketches = pages.map_batches(
    ...     SketchActor,
    ...     fn_constructor_kwargs={"encoding": Encoding("webp"), "threads": 2, "device": "cpu"},
    ...     compute=ray.data.ActorPoolStrategy(size=8),
    ...     num_cpus=2,  # as many as threads; or num_gpus=1, and no device
    ...     batch_size=16,
    ... )
    >>> sketches.write_parquet("s3://bucket/sketches")  # `convert_dataset` makes files of them
    """

    def __init__(self, encoding: Encoding | None = None, **options: Any) -> None:
        """Open the model. encoding: of the sketches, PNG if None; options: fields of `Options`.

        Raises OptionsError, ModelError, BackendUnavailable, EngineError, DeviceMemoryError.
        """
        import cv2

        cv2.setNumThreads(1)  # its own threads would come on top of those of the options
        self.encoding = encoding or Encoding()
        self.sketchify = Sketchifier(**options)
        self.lanes = min(self.sketchify.backend.workers, MAX_WORKERS)
        self.sketchify.prepare(self.lanes)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Convert a batch of Ray Data, whose columns are NumPy arrays (N,); never raises for a row.

        batch: "bytes" has image files, "path", if there is one, their names for messages. The
        result has in the place of "bytes" the columns "sketch", the bytes of an image file or None,
        and "error", why there is none, "" where there is one. Other columns stay as they are.
        """
        names = [str(name) for name in batch.get("path", ["<bytes>"] * len(batch["bytes"]))]
        files = [
            inputs.File(name, bytes(data)) for name, data in zip(names, batch["bytes"], strict=True)
        ]
        step, size = self.convert, lambda: self.sketchify.batch
        work = stream.batches(files, size, inputs.on_device)
        results = list(stream.in_order(step, work, self.lanes, inputs.on_device))
        sketches, errors = (np.empty(len(files), object) for _ in range(2))
        for place, (name, result) in enumerate(zip(names, results, strict=True)):
            failed = isinstance(result, Exception)
            sketches[place] = None if failed else result
            errors[place] = explain(result, Path(name)) if isinstance(result, Exception) else ""
        rest = {name: column for name, column in batch.items() if name != "bytes"}
        return rest | {"sketch": sketches, "error": errors}

    def convert(
        self, images: Sequence[Loaded], encoding: Encoding | None = None
    ) -> list[bytes | Exception]:
        """See `Sketchifier.convert_batch`. From `lanes` threads at once."""
        return self.sketchify.convert_batch(images, encoding or self.encoding)


class _Files(SketchActor):
    """Writes the sketches as well. root, target: as of `convert_dataset`."""

    def __init__(self, root: str, target: str, encoding: Encoding, **options: Any) -> None:
        super().__init__(encoding, **options)
        self._root = root
        self._system, self._folder = _filesystem(target)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        rows = super().__call__(batch)
        told = [
            self._row(*row) for row in zip(rows["path"], rows["sketch"], rows["error"], strict=True)
        ]
        return {name: np.array([row[name] for row in told], object) for name in told[0]}

    def _row(self, path: str, sketch: bytes | None, reason: str) -> dict[str, str]:
        output = f"{os.path.relpath(path, self._root)}.{self.encoding.format}"
        if sketch is not None:
            try:
                self._write(f"{self._folder}/{output}", sketch)
            except OSError as error:
                reason = f"{output}: cannot be written: {error}"
        status = "failed" if reason else "converted"
        return {"source": path, "output": output, "status": status, "reason": reason}

    def _write(self, path: str, data: bytes) -> None:
        from pyarrow import fs

        # Object stores show a file when it is whole; those with folders get it by another name.
        stored = isinstance(self._system, (fs.S3FileSystem, fs.GcsFileSystem))
        part = path if stored else f"{os.path.dirname(path)}/.{secrets.token_hex(8)}.part"  # noqa: PTH120
        if not stored:
            self._system.create_dir(os.path.dirname(path))  # noqa: PTH120
        with self._system.open_output_stream(part) as file:
            file.write(data)
        if not stored:
            self._system.move(part, path)


def convert_dataset(
    source: str,
    target: str,
    encoding: Encoding | None = None,
    *,
    actors: int = 1,
    batch_size: int = 8,
    gpu: bool = False,
    **options: Any,
) -> Iterator[dict[str, str]]:
    """Convert the pictures in and below a folder with Ray Data, all of it in the workers.

    source, target: URIs of folders as pyarrow or fsspec know them, s3://bucket/pages, or paths that
    all machines see. The sketch of a.jpg is a.jpg.png, whole or not there; one that is there is
    replaced. actors: of one GPU each, or of `threads` processors, 1 if not given; options: fields
    of `Options`.

    Gives a row for each picture, as they come: "source", "output", below the target, "status",
    "converted" or "failed", and "reason". A picture whose worker was lost is converted again, as
    often as it takes. Ray is the one that is started, or else starts. Raises BackendUnavailable
    where it is not installed, and Ray's errors where a folder cannot be read.
    """
    ray = _ray()
    encoding = encoding or Encoding()
    threads = options.setdefault("threads", 1)
    system, root = _filesystem(source)
    pages = ray.data.read_binary_files(
        root, filesystem=system, include_paths=True, file_extensions=sorted(ENDINGS)
    )
    rows = pages.map_batches(
        _Files,
        fn_constructor_args=(root, target, encoding),
        fn_constructor_kwargs=options,
        compute=ray.data.ActorPoolStrategy(size=actors),
        batch_size=batch_size,
        **({"num_gpus": 1} if gpu else {"num_cpus": threads}),
    )
    yield from rows.iter_rows()


def _filesystem(uri: str) -> tuple[Any, str]:
    """What pyarrow knows, or else fsspec, and the path there."""
    import pyarrow
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(uri)
    except pyarrow.ArrowInvalid:
        from fsspec.core import url_to_fs

        other, path = url_to_fs(uri)
        system = fs.PyFileSystem(fs.FSSpecHandler(other))
    return system, path.rstrip("/")


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
        ray = self._ray = _ray()
        self._started = not ray.is_initialized()
        self.local = self._started and _connect(ray, address, threads * (actors or 0))
        try:
            options, resources, room = _share(ray.cluster_resources(), options)
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

    def convert_batch(
        self, images: Sequence[Loaded], encoding: Encoding
    ) -> Sequence[bytes | Exception]:
        """See `Sketchifier.convert_batch`.

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
                raise self._broken
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent out unasked
    try:
        import ray
    except ImportError as error:
        raise BackendUnavailable(
            f"ray: {error}; `pip install 'sketchify-rt[ray]'` installs it"
        ) from error
    return ray


def _connect(ray: Any, address: str | None, processors: int) -> bool:
    """Connect, or start a cluster here; whether it was started.

    processors: that the cluster is to have if it is started, 0 for all of this machine.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    here = {"num_cpus": processors or Options().thread_count, "include_dashboard": False}
    try:
        # Ray would try for minutes, and then end the process.
        host, colon, port = address.rpartition("://")[2].partition(":")
        if colon:
            socket.create_connection((host, int(port)), _CONNECT).close()
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address == "local" else {}),
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise BackendUnavailable(
            f"ray: no cluster at {address} ({reason}); `ray start --head` starts one, and without "
            "an address this machine is used"
        ) from error
    return address == "local"


def _share(there: dict[str, float], options: Options) -> tuple[Options, dict[str, float], int]:
    """Options and resources of one actor, and how many of them a cluster has room for.

    Raises OptionsError and BackendUnavailable where there is none for these options.
    """
    processors, gpus = int(there.get("CPU", 0)), int(there.get("GPU", 0))
    if options.device.startswith("cuda:"):
        raise OptionsError(f"device is {options.device}; on Ray each actor has its own: give cuda")
    if gpus and options.device != "cpu":
        threads = options.threads or max(1, processors // gpus)
        return dataclasses.replace(options, threads=threads), {"num_gpus": 1}, gpus
    if options.of_gpu or options.device == "cuda":
        raise BackendUnavailable("ray: the cluster has no GPU; or use --device cpu or auto")
    threads = options.threads or 1
    if processors < threads:
        raise BackendUnavailable(
            f"ray: the cluster has {processors} processors, and an actor is to have {threads}; "
            "give fewer --threads"
        )
    options = dataclasses.replace(options, device="cpu", threads=threads)
    return options, {"num_cpus": threads}, processors // threads


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
