"""What a part of a benchmark gives, and how it is printed and saved."""

from __future__ import annotations

import json
import re
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import harness

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Table:
    """Rows of the same keys."""

    name: str
    rows: list[harness.Row]


@dataclass(frozen=True)
class NotRun:
    """Something that is not there, or failed, and why; the rest went on."""

    what: str
    why: str


Finding = Table | NotRun


class WrongError(Exception):
    """Something was computed wrong."""


def results_file(machine: harness.Row, named: str, *only: str) -> Path:
    """bench/results/DATE-NAME.json, or a longer name for what is not the whole.

    machine: with its "date", and its name under the key `named`.
    """
    name = re.sub(r"[^a-z0-9]+", "-", str(machine[named]).lower()).strip("-")
    return RESULTS / f"{'-'.join([str(machine['date'])[:10], name, *only])}.json"


def reason(error: BaseException) -> str:
    """An error in at most 300 characters."""
    return f"{type(error).__name__}: {error}".strip()[:300]


class Report:
    """Prints what it is given, and writes all so far to a file, anew each time.

    The file is JSON: `facts`, and for each of the `parts` its tables by name, what did not run and
    why, its seconds, and the error that ended it, if one did.
    """

    def __init__(self, file: Path, **facts: Mapping[str, object]) -> None:
        self._file = file
        self._parts: dict[str, dict[str, Any]] = {}
        self._document = {**facts, "parts": self._parts}
        for group in facts.values():
            print("\n".join(f"{name}: {value}" for name, value in group.items()), flush=True)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times a part, and takes down its error, so that the next one runs all the same."""
        print(f"\n== {name}", flush=True)
        part: dict[str, Any] = {"tables": {}, "not_run": {}}
        self._parts[name] = part
        self._write()  # a crash leaves a part without seconds
        start = time.perf_counter()
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            part["error"] = reason(error)
        part["seconds"] = time.perf_counter() - start
        self._write()

    def add(self, finding: Finding) -> None:
        """To the part that was begun last."""
        part = list(self._parts.values())[-1]
        if isinstance(finding, NotRun):
            print(f"\nnot run: {finding.what}: {finding.why}", flush=True)
            part["not_run"][finding.what] = finding.why
        else:
            part["tables"][finding.name] = finding.rows
            if finding.rows:
                print(f"\n{finding.name}\n{harness.table(finding.rows)}", flush=True)
        self._write()

    def _write(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(_json(self._document) + "\n", encoding="utf-8")


def _json(value: Any, indent: str = "") -> str:
    """JSON with a line for each row and each single value, floats to six digits."""
    if isinstance(value, float):
        return json.dumps(float(f"{value:.6g}"))
    if not isinstance(value, Mapping | list):
        return json.dumps(value)
    children = list(value.values()) if isinstance(value, Mapping) else value
    inner = f"{indent}  "
    texts = [_json(child, inner) for child in children]
    if isinstance(value, Mapping):
        texts = [f"{json.dumps(key)}: {text}" for key, text in zip(value, texts, strict=True)]
    first, last = "{}" if isinstance(value, Mapping) else "[]"
    if not any(isinstance(child, Mapping | list) for child in children):
        return f"{first}{', '.join(texts)}{last}"
    return f"{first}\n{inner}" + f",\n{inner}".join(texts) + f"\n{indent}{last}"
