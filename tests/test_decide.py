"""The pure decision about one item, as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sketchify_rt.batch.journal import Record
from sketchify_rt.batch.resume import (
    Convert,
    Decision,
    Existing,
    Fail,
    FailedBefore,
    Rules,
    Seen,
    Settings,
    Skip,
    decide,
    keeps,
)
from sketchify_rt.errors import OutputError
from sketchify_rt.options import Encoding, Options


def unread() -> int:
    raise AssertionError("the content was read, though size and time decide")


SEEN = Seen(b"../in/a.jpg", 100, 50, unread, "settings", 9)
DONE = Record(b"../in/a.jpg", 100, 50, 77, "settings", "converted", written=9)
BAD = DONE._replace(status="failed", reason="is cut short", lasting=True, limits="L", written=None)
FLAWED = DONE._replace(status="flawed", reason="1 of 2 pages", lasting=True, limits="L")
REFUSE, SKIP, OVERWRITE = (
    Rules(existing, limits="L") for existing in ("refuse", "skip", "overwrite")
)
RETRY = replace(REFUSE, retry_failed=True)
LATER = replace(REFUSE, repeat=False)

ABSENT: dict[str, Any] = {"result": None}
FOREIGN: dict[str, Any] = {"result": 8}
OTHER_SETTINGS: dict[str, Any] = {"settings": "other"}
LARGER: dict[str, Any] = {"size": 101}
COPIED: dict[str, Any] = {"modified": 60, "content": lambda: 77}
EDITED: dict[str, Any] = {"modified": 60, "content": lambda: 78}
LINKED: dict[str, Any] = {"source": b"../link/a.jpg", "content": lambda: 77}


@pytest.mark.parametrize(
    ("changes", "record", "rules", "expected"),
    [
        # Nothing is known of the result.
        (ABSENT, None, REFUSE, Convert()),
        (ABSENT, None, SKIP, Convert()),
        ({}, None, REFUSE, "exists already"),
        ({}, None, SKIP, Skip()),
        ({}, None, OVERWRITE, Convert(replace=True)),
        # It is done.
        ({}, DONE, REFUSE, Skip()),
        ({}, DONE, SKIP, Skip()),
        ({}, DONE, OVERWRITE, Convert(replace=True)),
        (ABSENT, DONE, REFUSE, Convert()),
        (FOREIGN, DONE, REFUSE, "exists already"),
        (FOREIGN, DONE, SKIP, Skip()),
        # The input or the settings are others.
        (LARGER, DONE, REFUSE, Convert(replace=True)),
        (LARGER, DONE, SKIP, Skip()),
        (OTHER_SETTINGS, DONE, REFUSE, Convert(replace=True)),
        (LARGER | FOREIGN, DONE, REFUSE, "exists already"),
        # Folders were moved, copied or linked to.
        (COPIED, DONE, REFUSE, Skip(renew=True)),
        (LINKED, DONE, REFUSE, Skip(renew=True)),
        (EDITED, DONE, REFUSE, Convert(replace=True)),
        (COPIED, DONE._replace(content=None), REFUSE, Convert(replace=True)),
        # A run was killed while it replaced a result.
        ({}, DONE._replace(status="replacing"), REFUSE, Convert(replace=True)),
        (FOREIGN, DONE._replace(status="replacing"), REFUSE, Convert(replace=True)),
        (ABSENT, DONE._replace(status="replacing"), REFUSE, Convert()),
        # It failed before.
        (ABSENT, BAD, REFUSE, "failed before"),
        (ABSENT, BAD, SKIP, "failed before"),
        (ABSENT, BAD, RETRY, Convert()),
        (ABSENT, BAD, LATER, Skip()),
        (ABSENT, BAD, OVERWRITE, Convert(replace=True)),
        (ABSENT, BAD, replace(REFUSE, limits="M"), Convert()),
        (ABSENT, BAD._replace(lasting=False), REFUSE, Convert()),
        (ABSENT | LARGER, BAD, REFUSE, Convert()),
        (ABSENT | COPIED, BAD, REFUSE, "failed before"),
        ({}, BAD, RETRY, "exists already"),
        ({}, BAD, replace(RETRY, existing="skip"), Skip()),
        ({}, BAD._replace(written=9), RETRY, Convert(replace=True)),
        # Some pages of an archive failed.
        (ABSENT, FLAWED, REFUSE, Convert()),
        (FOREIGN, FLAWED, REFUSE, "exists already"),
        ({}, FLAWED, REFUSE, "failed before"),
        ({}, FLAWED, RETRY, Convert(replace=True)),
        ({}, FLAWED._replace(lasting=False), REFUSE, Convert(replace=True)),
    ],
)
def test_what_is_decided(
    changes: dict[str, Any], record: Record | None, rules: Rules, expected: Decision | str
) -> None:
    decision = decide(replace(SEEN, **changes), record, rules)
    if isinstance(expected, str):
        assert isinstance(decision, Fail)
        assert expected in str(decision.error)
        kind = FailedBefore if expected == "failed before" else OutputError
        assert isinstance(decision.error, kind)
    else:
        assert decision == expected


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        (None, dict.fromkeys(("refuse", "skip", "overwrite"), False)),
        (b"", dict.fromkeys(("refuse", "skip", "overwrite"), False)),  # as a power cut leaves it
        (b"x", {"refuse": None, "skip": True, "overwrite": False}),
    ],
)
def test_what_is_kept(
    tmp_path: Path, content: bytes | None, kept: dict[Existing, bool | None]
) -> None:
    path = tmp_path / "a.png"
    if content is not None:
        path.write_bytes(content)
    for existing, expected in kept.items():
        if expected is None:
            with pytest.raises(OutputError, match=r"a\.png: exists already; give --overwrite or"):
                keeps(path, existing)
        else:
            assert keeps(path, existing) == expected


def digests(*changes: dict[str, Any], mode: str = "sketch") -> list[str]:
    """Digests of the settings with each of these options."""
    options = [Options(mode=mode, **change) for change in changes]  # type: ignore[arg-type]
    return [Settings(chosen, Encoding(), 200).digest() for chosen in options]


@pytest.mark.parametrize(
    ("mode", "change", "matters"),
    [
        ("sketch", {"strength": 2.0}, True),
        ("dodge", {"strength": 2.0}, True),
        ("binary", {"strength": 2.0}, False),
        ("sketch", {"precision": "fp32"}, True),
        ("dodge", {"precision": "fp32"}, False),
        ("dodge", {"model": "full"}, False),
        ("sketch", {"hint": 0.5}, True),
        ("sketch", {"detail": "auto"}, True),
        ("sketch", {"max_side": 100}, True),
        ("sketch", {"threads": 1, "tile": 512, "batch": 3, "max_pixels": 10**6}, False),
    ],
)
def test_settings_are_what_matters(mode: str, change: dict[str, Any], matters: bool) -> None:
    plain, changed = digests({}, change, mode=mode)
    assert (plain != changed) == matters


def test_settings_name_the_resolution_of_pages_and_the_content_of_hints_alone() -> None:
    def make(dpi: int, form: str = "png") -> Settings:
        return Settings(Options(mode="dodge"), Encoding(form), dpi)  # type: ignore[arg-type]

    assert make(200).digest() == make(300).digest() != make(200, "webp").digest()
    assert make(200).digest(pdf=True) != make(300).digest(pdf=True)
    assert len({make(200).digest(hint=hint) for hint in (None, 0, 1)}) == 3
    assert digests({"detail": "auto"}) == digests({"detail": 1500})
