"""What README.md and docs/ tell: commands have the options they are given, Python runs."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner

import sketchify_rt
from sketchify_rt import errors
from sketchify_rt.cli.verbs import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TROUBLE = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")

# Need what no test has: a server, pictures of a data set; test_ecosystem and test_transform run
# those of ecosystem.md.
NOT_RUN = {"ecosystem.md", "server.md"}


class Block(NamedTuple):
    page: str
    language: str
    note: str
    text: str


def blocks(*languages: str) -> list[Block]:
    fence = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
    found = [Block(p.name, *m) for p in PAGES for m in fence.findall(p.read_text("utf-8"))]
    return [block for block in found if block.language in languages]


def commands(block: Block) -> list[list[str]]:
    """The words of each command, cut at pipes, redirections and `&&`; comments aside."""
    lines = block.text.replace("\\\n", " ").splitlines()
    parts: list[list[str]] = []
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("|&;<>"):
                parts.append(words)
                words = []
            else:
                words.append(word)
    return [words for words in parts if words]


SHELL = [words for block in blocks("sh", "console") for words in commands(block)]
OURS = [words[1:] for words in SHELL if words[0] == "sketchify-rt"]
TRAINING = [words[3:] for words in SHELL if words[:3] == ["python", "-m", "training"]]


def parse(arguments: list[str]) -> click.Context:
    """All the way down to the verb; raises UsageError as the program would."""
    context: click.Context = main.make_context("sketchify-rt", list(arguments))
    while isinstance(context.command, click.Group):
        rest = [*context._protected_args, *context.args]
        name, command, rest = context.command.resolve_command(context, rest)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("arguments", OURS, ids=" ".join)
def test_a_command_has_the_options_it_is_given(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in "scans", "comics", "engines/lite", "hints":
        Path(folder).mkdir(parents=True)
    parse(arguments)


@pytest.mark.parametrize("arguments", [["convert", "a.jpg", "-o", "out", "--nonsense"], ["watch"]])
def test_a_wrong_command_would_be_found(arguments: list[str]) -> None:
    with pytest.raises(click.UsageError):
        parse(arguments)


def test_the_commands_are_found() -> None:
    assert len(OURS) > 20
    assert {words[0] for words in TRAINING} >= {"prepare", "fit", "evaluate", "export", "quantize"}


@pytest.mark.parametrize("verb", sorted({words[0] for words in TRAINING}))
def test_training_has_the_options_it_is_given(verb: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "training", verb, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for words in TRAINING:
        if words[0] == verb:
            for option in (word.split("=")[0] for word in words if word.startswith("--")):
                assert re.search(rf"{option}\b", told), f"training {verb} has no {option}"


def with_sample(folder: Path) -> None:
    """The names that the pages use, small, so that all of it takes a second."""
    from PIL import Image

    with Image.open(ROOT / "samples/lake.jpg") as lake:
        lake.reduce(4).save(folder / "page.jpg")
        lake.reduce(32).save(folder / "hint.png")
    (folder / "scans").mkdir()
    (folder / "scans/1.jpg").write_bytes((folder / "page.jpg").read_bytes())
    (folder / "hints").mkdir()
    (folder / "hints/1.png").write_bytes((folder / "hint.png").read_bytes())


@pytest.mark.parametrize("page", ["index.md", "how.md", "questions.md"])
def test_the_commands_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_sample(tmp_path)
    ran = 0
    for block in blocks("sh"):
        for words in commands(block) if block.page == page else []:
            if words[0] != "sketchify-rt" or words[1] not in ("convert", "compare"):
                continue
            if not Path(words[2]).exists() or {"cuda", "my.onnx"} & set(words):
                continue  # files that no test has
            again = ["--overwrite"] if "page.jpg" in words else []
            result = CliRunner().invoke(main, [*words[1:], *again])
            assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
            ran += 1
    assert ran >= 2


# So that it takes seconds.
LESS = {
    "prepare": ["--val-share", "0.4"],
    "fit": shlex.split("--steps 2 --workers 0 --set batch=1 --set crop=64 --set model.width=4"),
    "quantize": ["--crops", "2"],
}


@pytest.mark.slow
def test_the_training_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.cli import main as training

    monkeypatch.chdir(tmp_path)
    with_sample(tmp_path)
    shutil.copytree(ROOT / "samples", "pages")
    ran = []
    for block in blocks("sh"):
        for words in commands(block) if block.page == "training.md" else []:
            if words[:3] == ["python", "-m", "training"]:
                _, _, _, verb, *rest = words
                if verb == "fit" and Path(rest[1]).exists():
                    shutil.rmtree(rest[1])
                elif verb == "compare":
                    shutil.copytree(*rest)
                less = LESS.get(verb, [])
                if "--initial" in rest:
                    less = less[:-2]  # of the width of what it begins with
                result = CliRunner().invoke(training, [verb, *rest, *less])
                ran.append(verb)
            elif words[0] == "sketchify-rt" and "--model" in words:
                result = CliRunner().invoke(main, words[1:])
            else:
                continue
            assert result.exit_code == 0, f"{shlex.join(words)}: {result.output}"
    assert {"prepare", "fit", "evaluate", "export", "quantize"} <= set(ran)


@pytest.mark.parametrize(
    "page", sorted({b.page for b in blocks("python") if b.note != "notest"} - NOT_RUN)
)
def test_the_python_of_a_page_runs(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with_sample(tmp_path)
    names: dict[str, object] = {"__name__": page, "paths": ["scans/1.jpg"]}
    ran = 0
    for block in blocks("python"):
        if block.page == page and block.note != "notest":
            exec(compile(block.text, page, "exec"), names)
            ran += 1
    assert ran
    if page == "embedding.md":
        the_service_answers(names["app"])


def the_service_answers(app: object) -> None:
    from fastapi.testclient import TestClient

    with TestClient(app) as client:
        found = client.post("/sketch", content=Path("page.jpg").read_bytes())
        assert found.status_code == 200
        assert found.headers["content-type"] == "image/png"
        assert found.content[:4] == b"\x89PNG"
        refused = client.post("/sketch", content=b"no image")
        assert refused.status_code == 422
        assert "not an image" in refused.json()["detail"]


@pytest.mark.parametrize("block", blocks("python"), ids=lambda b: b.page)
def test_python_that_does_not_run_here_is_python(block: Block) -> None:
    compile(block.text, block.page, "exec")


ERRORS = [name for name, of in vars(errors).items() if inspect.isclass(of)]
ERRORS = [name for name in ERRORS if issubclass(getattr(errors, name), errors.SketchifyError)]


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_has_a_section_with_a_message(name: str) -> None:
    section = TROUBLE.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert name == "SketchifyError" or "\n> `" in section


def source() -> str:
    """Of the package, with the strings that stand in pieces put together."""
    text = "\n".join(path.read_text("utf-8") for path in (ROOT / "sketchify_rt").rglob("*.py"))
    return re.sub(r'"\s*\n?\s*f?"', "", text)


SOURCE = source()


@pytest.mark.parametrize("quoted", re.findall(r"^> `(.*)`$", TROUBLE, re.MULTILINE))
def test_a_quoted_message_stands_in_the_code(quoted: str) -> None:
    pattern = r"\{[^\n]*?\}".join(re.escape(part) for part in quoted.split("…"))
    assert re.search(pattern, SOURCE)


def test_the_reference_names_what_is_public() -> None:
    api = (ROOT / "docs/api.md").read_text("utf-8")
    for name in set(sketchify_rt.__all__) - set(ERRORS) - {"__version__"}:
        home = inspect.getmodule(getattr(sketchify_rt, name))
        assert home is not None
        assert f"::: {home.__name__}.{name}\n" in api


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    reference = (tmp_path / "cli.html").read_text("utf-8")
    for verb in main.list_commands(click.Context(main)):
        assert f'<h2 id="{verb}">' in reference
    loaded = re.compile(r'<(?:script|link|img)[^>]*(?:src|href)="?https?://')
    for page in tmp_path.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not loaded.search(text), f"{page.name} loads from elsewhere"
        assert "```" not in text, f"{page.name} has a block that is none"
        quoted = re.search(r"<blockquote>\s*<blockquote>", text)
        assert not quoted, f"{page.name}: a docstring has >>> outside of 'Examples:'"
