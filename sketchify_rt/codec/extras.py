"""What a source has besides its luma, for who asks for it: metadata and alpha."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image

from sketchify_rt import image
from sketchify_rt.codec import cpu, jxl, metadata
from sketchify_rt.codec.header import File
from sketchify_rt.codec.metadata import Metadata
from sketchify_rt.errors import DecodeError, EncodeError, InputError
from sketchify_rt.image import Gray
from sketchify_rt.options import Encoding


@dataclass(frozen=True, eq=False)
class Extras:
    """What a source has besides its luma.

    Attributes:
        metadata: EXIF, colour profile and resolution.
        alpha: uint8 (H, W), upright, of the luma's shape, 255 opaque; None where all of it is.
    """

    metadata: Metadata = metadata.NONE
    alpha: Gray | None = None

    def fitted(self, shape: tuple[int, int], max_side: int | None, square: int | None) -> Extras:
        """For luma of that shape, cut and resized as `image.fit` says.

        Raises:
            InputError: alpha has another shape.
        """
        rows, columns, height, width = image.fit(shape, max_side, square)
        across = width / len(range(shape[1])[columns])
        down = height / len(range(shape[0])[rows])
        plane = self.alpha
        if plane is not None:
            if plane.shape != shape:
                raise InputError(
                    f"alpha must have the shape {shape} of its picture: got {plane.shape}"
                )
            plane = _unless_opaque(image.resize(plane[rows, columns], height, width))
        return Extras(self.metadata.scaled(across, down), plane)

    def wanted(self, encoding: Encoding) -> Extras:
        """Without what the encoding does not ask for."""
        return Extras(
            self.metadata if encoding.metadata else metadata.NONE,
            self.alpha if encoding.alpha == "keep" else None,
        )

    def encode(self, sketch: Gray, encoding: Encoding) -> bytes:
        """A file of the sketch with its alpha, see `cpu.encode`."""
        return cpu.encode(sketch, encoding, self.alpha)

    def attach(
        self, file: bytes | EncodeError, encoding: Encoding, shape: tuple[int, int]
    ) -> bytes | EncodeError:
        """The file of a sketch of that shape with the metadata in it; an error stays one."""
        if isinstance(file, EncodeError):
            return file
        return metadata.attach(file, encoding.format, self.metadata, *shape)


def read(file: File, encoding: Encoding) -> Extras:
    """What the encoding asks for of a file that `cpu.decode` has read; without broken metadata.

    Raises:
        DecodeError: alpha cannot be read.
    """
    header, found = file.header, metadata.NONE
    if encoding.metadata:
        if header.format == "JPEG XL":
            header = jxl.described(file.data, header)
        found = metadata.read(header)
    if encoding.alpha != "keep":
        return Extras(found)
    try:
        return Extras(found, _unless_opaque(cpu.decode_alpha(file)))
    except Exception as error:  # broken data makes decoders raise anything
        raise DecodeError(file.name, f"its alpha cannot be read: {error}") from error


def from_pil(source: PIL.Image.Image, encoding: Encoding) -> Extras:
    """What the encoding asks for of a Pillow image. Raises whatever `load` of it does."""
    found = metadata.from_pil(source) if encoding.metadata else metadata.NONE
    return Extras(found, cpu.alpha_of_pil(source) if encoding.alpha == "keep" else None)


def _unless_opaque(plane: Gray | None) -> Gray | None:
    return None if plane is None or plane.min() == 255 else plane
