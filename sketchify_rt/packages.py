"""Which Python packages are installed."""

from __future__ import annotations

import importlib.util


def installed(name: str) -> bool:
    """Return whether a module of that dotted name can be found; it is not imported."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # nor the package that it is in
        return False
