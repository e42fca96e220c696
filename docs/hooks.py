"""What MkDocs does to the pages: the help of each verb, and links that lead out of docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

from sketchify_rt.cli.verbs import main

_PROGRAM = "sketchify-rt"
# Of a block of code, for the tests; with it, MkDocs would take the block for text.
_NOTE = re.compile(r"^(```\w+) \w+$", re.MULTILINE)
_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./[^)]+\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs with each page."""
    # Sources are no part of the site: GitHub follows these links, the site shows their words.
    markdown = _OUTSIDE.sub(r"\1", markdown)
    markdown = _NOTE.sub(r"\1", markdown)
    if "<!-- commands -->" in markdown:
        markdown = markdown.replace("<!-- commands -->", "\n\n".join(_reference()))
    return markdown


def commands() -> Iterator[tuple[str, click.Context]]:
    """Each verb, and each verb of a verb, by its words."""
    yield from _below(_PROGRAM, main.make_context(_PROGRAM, [], resilient_parsing=True))


def _below(words: str, context: click.Context) -> Iterator[tuple[str, click.Context]]:
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(f"{words} lists {name}, and has no such command")
        # resilient: no arguments are given, and some verbs require them
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        yield f"{words} {name}", inner
        yield from _below(f"{words} {name}", inner)


def _reference() -> Iterator[str]:
    for words, context in commands():
        title = words.removeprefix(f"{_PROGRAM} ")
        context.terminal_width = 74  # of the site's column on a desk
        yield f"## {title}\n\n```text\n{context.get_help()}\n```"
