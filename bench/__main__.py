"""`python -m bench NAME [ARGUMENTS]` runs main(ARGUMENTS) of bench/bench_NAME.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path


def main(argv: list[str]) -> int:
    """Runs the benchmark named first in `argv`; 2 where there is none of that name."""
    stems = (path.stem for path in Path(__file__).parent.glob("bench_*.py"))
    names = sorted(stem.removeprefix("bench_") for stem in stems)
    if not argv or argv[0] not in names:
        print(f"usage: python -m bench {{{','.join(names)}}} [--help]", file=sys.stderr)
        return 2
    importlib.import_module(f"bench.bench_{argv[0]}").main(argv[1:])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
