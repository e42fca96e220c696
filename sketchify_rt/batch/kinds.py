"""Kinds of files, by their names."""

from __future__ import annotations

from typing import Literal

ENDINGS = frozenset(
    "avif bmp dib gif heic heif hif jfif jpe jpeg jpg jxl pbm pgm png pnm ppm psb psd tif tiff "  # noqa: SIM905
    "webp".split()
)
"""Endings of pictures, in lower case."""

VIDEO_ENDINGS = frozenset({"m4v", "mkv", "mov", "mp4", "webm"})
"""Endings of videos that can be written."""

Kind = Literal["image", "archive", "pdf", "video"]

_OTHER_ARCHIVES = frozenset({"7z", "cb7", "cbr", "cbt", "epub", "rar", "tar"})
# All other files are taken for pictures. Their content decides.
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("cbz", "zip", *_OTHER_ARCHIVES), "archive"),
    "pdf": "pdf",
    **dict.fromkeys(("avi", "mpeg", "mpg", *VIDEO_ENDINGS), "video"),
}
# A folder of pictures may have any other archives and videos in it, which nobody meant.
_LOOKED_FOR = ENDINGS | {"cbr", "cbz"}
_JUNK = frozenset({"desktop.ini", "thumbs.db", "__macosx", "@eadir", "$recycle.bin"})

_BY_NAME = 'name the file, or give a pattern such as "**/*.{}"'
# What to do about files that a user may take for pictures or books.
_REMEDIES = {
    ending: remedy
    for remedy, endings in {
        "convert to PNG": "cur dds eps exr hdr ico j2k jp2 jpf jpx jxr pcx qoi svg tga",
        "export as PNG": "afphoto ai clip kra mdp ora procreate sai xcf",
        "develop to TIFF": "arw cr2 cr3 crw dng nef nrw orf pef raf raw rw2 srw x3f",
        "repack as CBZ": "7z cb7 cbr cbt rar tar",
        "convert to PDF or EPUB": "azw azw3 djvu fb2 mobi",
        "convert to MP4": "3gp flv m2ts ogv wmv",
        _BY_NAME: "avi epub m4v mkv mov mp4 mpeg mpg pdf webm zip",
    }.items()
    for ending in endings.split()
}


def ending_of(name: str) -> str:
    """Returns the ending in lower case, "" if the name has none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def kind_of(name: str) -> Kind:
    """Returns the kind of a file that a user named."""
    return _KINDS.get(ending_of(name), "image")


def is_junk(name: str) -> bool:
    """Tells whether a file or folder is hidden, or was made by an operating system."""
    return name.startswith(".") or name.lower() in _JUNK


def is_image(name: str) -> bool:
    """Tells whether a file is a picture that is neither hidden nor junk."""
    return ending_of(name) in ENDINGS and not is_junk(name)


def is_looked_for(name: str) -> bool:
    """Tells whether a file is taken if it is found in a folder."""
    return ending_of(name) in _LOOKED_FOR and not is_junk(name)


def is_passed_over(name: str) -> bool:
    """Tells whether a user may wonder why a file in a folder was not converted."""
    return not is_looked_for(name) and ending_of(name) in _REMEDIES


def remedy_for(ending: str) -> str:
    """Returns what to do about files for which `is_passed_over` is true."""
    return _REMEDIES[ending].format(ending)


def stem_of(name: str) -> str:
    """Returns the name without the ending of a picture. Other names, as "page.v2", stay whole."""
    return name.rpartition(".")[0] if is_image(name) else name


def archive_name(name: str, *, keep: bool) -> str:
    """Returns the name of the archive of results, which is a ZIP file.

    Args:
        name: Of the archive of pictures.
        keep: Keep an ending that has to change: "a.cbr.cbz" rather than "a.cbz".
    """
    if ending_of(name) not in _OTHER_ARCHIVES:
        return name
    return f"{name if keep else name.rpartition('.')[0]}.cbz"


def video_name(name: str) -> str:
    """Returns the name of the result of a video, Matroska if its own kind cannot be written."""
    return name if ending_of(name) in VIDEO_ENDINGS else f"{name}.mkv"
