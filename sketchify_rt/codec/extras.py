"""What a source has besides its luma, for who asks for it: metadata, alpha and colours."""

from __future__ import annotations

from dataclasses import dataclass

import PIL.Image

from sketchify_rt import colour, image
from sketchify_rt.codec import cpu, jxl, metadata
from sketchify_rt.codec.header import File
from sketchify_rt.codec.metadata import Metadata
from sketchify_rt.errors import DecodeError, EncodeError, InputError
from sketchify_rt.image import Gray, Rgb
from sketchify_rt.options import Encoding


@dataclass(frozen=True, eq=False)
class Extras:
    """What a source has besides its luma.

    Attributes:
        metadata: EXIF, colour profile and resolution.
        alpha: uint8 (H, W), upright, of the luma's shape, 255 opaque; None where all of it is.
        colours: uint8 (H, W, 3), likewise, for look "color"; once it is fitted a wash, see
            `colour.wash`. None where nobody asked for it.
    """

    metadata: Metadata = metadata.NONE
    alpha: Gray | None = None
    colours: Rgb | None = None

    def fitted(self, shape: tuple[int, int], max_side: int | None, square: int | None) -> Extras:
        """For luma of that shape, cut and resized as `image.fit` says.

        Raises:
            InputError: alpha or colours have another shape.
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
        colours = self.colours
        if colours is not None:
            if colours.shape[:2] != shape:
                raise InputError(
                    f"colours must have the shape {shape} of their picture: got {colours.shape[:2]}"
                )
            colours = colour.wash(colours[rows, columns], height, width)
        return Extras(self.metadata.scaled(across, down), plane, colours)

    def wanted(self, encoding: Encoding | None, colours: bool) -> Extras:
        """Without what the encoding and the look do not ask for."""
        return Extras(
            self.metadata if encoding and encoding.metadata else metadata.NONE,
            self.alpha if encoding and encoding.alpha == "keep" else None,
            self.colours if colours else None,
        )

    @property
    def of_host(self) -> bool:
        """Whether a sketch with these is finished on the host."""
        return self.alpha is not None or self.colours is not None

    def coloured(self, sketch: Gray) -> Gray | Rgb:
        """The sketch over its colours, if they are wanted."""
        return sketch if self.colours is None else colour.lay(sketch, self.colours)

    def encode(self, sketch: Gray, encoding: Encoding) -> bytes:
        """A file of the sketch with its alpha and colours, see `cpu.encode`."""
        return cpu.encode(self.coloured(sketch), encoding, self.alpha)

    def attach(
        self, file: bytes | EncodeError, encoding: Encoding, shape: tuple[int, int]
    ) -> bytes | EncodeError:
        """The file of a sketch of that shape with the metadata in it; an error stays one."""
        if isinstance(file, EncodeError):
            return file
        rgb = self.colours is not None
        return metadata.attach(file, encoding.format, self.metadata, *shape, rgb)


def read(file: File, encoding: Encoding | None, colours: bool = False) -> Extras:
    """What is asked for of a file that `cpu.decode` has read; without broken metadata.

    Args:
        file: The file.
        encoding: Of the result; None for pixels.
        colours: Whether the look needs them.

    Raises:
        DecodeError: alpha or colours cannot be read.
    """
    header, found = file.header, metadata.NONE
    if encoding and encoding.metadata:
        if header.format == "JPEG XL":
            header = jxl.described(file.data, header)
        found = metadata.read(header)
    what, alpha = "alpha", None
    try:
        if encoding and encoding.alpha == "keep":
            alpha = _unless_opaque(cpu.decode_alpha(file))
        what = "colours"
        return Extras(found, alpha, cpu.decode_colours(file) if colours else None)
    except Exception as error:  # broken data makes decoders raise anything
        raise DecodeError(file.name, f"its {what} cannot be read: {error}") from error


def from_pil(source: PIL.Image.Image, encoding: Encoding | None, colours: bool = False) -> Extras:
    """What is asked for of a Pillow image, see `read`. Raises whatever `load` of it does."""
    keeps_alpha = encoding and encoding.alpha == "keep"
    return Extras(
        metadata.from_pil(source) if encoding and encoding.metadata else metadata.NONE,
        cpu.alpha_of_pil(source) if keeps_alpha else None,
        cpu.from_pil(source, take=image.to_rgb) if colours else None,
    )


def _unless_opaque(plane: Gray | None) -> Gray | None:
    return None if plane is None or plane.min() == 255 else plane
