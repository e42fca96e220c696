"""The pipeline and each of its stages alone, under the same conditions: batches, lanes, streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from bench.gpu.setup import Setup
from bench.gpu.timing import synchronize
from sketchify_rt import Encoding, Sketchifier, stream
from sketchify_rt.codec.header import File
from sketchify_rt.options import MAX_PIXELS, Mode


def opened(setup: Setup, mode: Mode) -> Sketchifier:
    """An engine on the device, ready for as many workers as the device likes."""
    sketchify = Sketchifier(mode=mode, device=str(setup.device), runtime=setup.runtime)
    sketchify.prepare(sketchify.backend.workers)
    return sketchify


class Stages:
    """Runs one stage over all images; each ends when the device has done all."""

    def __init__(self, setup: Setup, sketchify: Sketchifier, files: Sequence[bytes]) -> None:
        """files: JPEG; taken again from the start until there are `setup.scale.images`."""
        self._setup = setup
        self._sketchify = sketchify
        self._backend = sketchify.backend
        self._pipeline = sketchify._open(self._backend.workers)
        self._times = -(-setup.scale.images // len(files))
        self._files = list(files)
        self._grays = list(self._over(self._files, self._decoded))
        self._sketches = list(self._over(self._grays, self._converted))
        self._arrays = list(self._backend.give(self._grays, on_device=False))
        self.images = self._times * len(files)

    def decode(self) -> None:
        """Files to images on the device."""
        _exhaust(self._over(self._files * self._times, self._decoded))

    def upload(self) -> None:
        """Arrays to images on the device."""
        _exhaust(self._over(self._arrays * self._times, self._backend.place))

    def download(self) -> None:
        """Sketches to arrays."""
        _exhaust(self._over(self._sketches * self._times, self._arrays_of))

    def _arrays_of(self, sketches: list[Any]) -> Sequence[Any]:
        return self._backend.give(sketches, on_device=False)

    def convert(self) -> None:
        """Images to sketches: kernels, and the U-Net in mode sketch."""
        _exhaust(self._over(self._grays * self._times, self._converted))

    def encode(self, encoding: Encoding) -> None:
        """Sketches to files."""

        def encoded(batch: list[Any]) -> Sequence[Any]:
            return self._backend.encode(batch, encoding, self._threads)

        _exhaust(self._over(self._sketches * self._times, encoded))

    def pipeline(self, encoding: Encoding | None) -> None:
        """Files to files; arrays to arrays, if there is no encoding."""
        inputs = self._files if encoding else self._arrays
        _exhaust(self._sketchify.map(inputs * self._times, encoding=encoding))

    @property
    def _threads(self) -> int:
        return max(1, self._sketchify.options.thread_count // self._backend.workers)

    def _decoded(self, files: list[bytes]) -> Sequence[Any]:
        pages = [File("page", data) for data in files]
        return self._backend.decode(pages, MAX_PIXELS, self._threads)

    def _converted(self, grays: list[Any]) -> Sequence[Any]:
        return self._pipeline.draw(grays, grays)

    def _over(
        self, inputs: Iterable[Any], step: Callable[[list[Any]], Sequence[Any]]
    ) -> Iterator[Any]:
        """What `step` gives for all, in batches of the engine's on threads of their own."""

        def in_lane(batch: list[Any]) -> list[Any]:
            with self._backend.lane(True):
                results = list(step(batch))
            for result in results:
                if isinstance(result, Exception):
                    raise result
            return results

        batches = stream.batches(inputs, lambda: self._sketchify.batch, _never)
        yield from stream.in_order(in_lane, batches, self._backend.workers, _never)
        synchronize(self._setup.device)


def _exhaust(results: Iterable[object]) -> None:
    """Lets go of each at once, as who writes them to files does."""
    for _ in results:
        pass


def _never(_: object) -> bool:
    return False
