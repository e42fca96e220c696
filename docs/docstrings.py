"""Docstrings as Markdown for the site: `name: text` is an item of a list, `>>>` is code."""

from __future__ import annotations

import re
from typing import Any

import griffe

_FIELD = re.compile(r"^(?:\w+(?:, \w+)*): ")


class Fields(griffe.Extension):
    """Rewrites each docstring that is read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe with each module, class and function."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """The same words; the first line, a sentence, is left as it is."""
    first, *rest = text.splitlines()
    lines, listed, code = [first], False, False
    for line in rest:
        if line.startswith(">>> ") != code:
            code = not code
            lines.append("```python" if code else "```")
        if code:
            lines.append(line.removeprefix(">>> "))
            continue
        if _FIELD.match(line):
            name, words = line.split(": ", 1)
            if not listed:
                lines.append("")
            listed = True
            line = f"- **{name}**: {words}"
        elif not line:
            listed = False
        lines.append(line)
    return "\n".join(lines + ["```"] * code)
