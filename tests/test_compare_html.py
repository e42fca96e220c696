"""The HTML sheet: what is in it, and that a browser shows it without a network."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path

import chromium
import cv2
import numpy as np
import pytest
from test_compare import compare, page, paint

from sketchify_rt.compare import figure, html, words
from sketchify_rt.compare.figure import Figure
from sketchify_rt.kernels import native

LOADING = {"src", "href", "srcset", "action", "data", "poster", "background"}


class Reader(HTMLParser):
    """Every element with its attributes, and the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def rows() -> list[Figure]:
    gray = page()
    return [
        figure.draw("a <b>page</b> & more", gray, paint, html.BOX),
        figure.draw("black\ud800white", native.binarize(gray), paint, html.BOX),
    ]


@pytest.fixture(scope="module")
def text(rows: list[Figure]) -> str:
    return html.sheet(rows, "by hand").decode()


def test_everything_is_in_the_file(text: str) -> None:
    elements = Reader(text).elements
    assert {tag for tag, _ in elements}.isdisjoint({"link", "iframe", "object", "embed", "base"})
    targets = [
        str(value)
        for _, attributes in elements
        for key, value in attributes.items()
        if key in LOADING
    ]
    assert len(targets) == 2 + 7 + 6
    names = {f"#{attributes['id']}" for _, attributes in elements if "id" in attributes}
    for target in targets:
        assert target.startswith("data:image/webp;base64,") or target in names
    assert not re.search(r"//\w|url\(|@import|fetch|XMLHttp", re.sub('base64,[^"]*', "", text))


def test_pictures_are_those_of_the_figure(rows: list[Figure], text: str) -> None:
    pictures = [
        cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
        for data in re.findall('src="data:image/webp;base64,([^"]*)"', text)
    ]
    slider_first = sorted(rows[0].panels, key=lambda title: title not in ("original", "sketch"))
    for picture, title in zip(pictures, slider_first, strict=False):
        panel = rows[0].panels[title]
        wanted = panel.picture if panel.picture.ndim == 3 else panel.picture[..., None]
        far = np.abs(picture.astype(int) - wanted)
        exact = title.endswith("threshold")
        assert far.mean() <= (0 if exact else 6), title


def test_table_has_the_figures_and_names_are_text(rows: list[Figure], text: str) -> None:
    reader = Reader(text)
    assert rows[0].metrics is not None
    for name, value in words.figures(rows[0].metrics).items():
        assert {name, value} <= set(reader.texts)
    assert words.NO_TONES in reader.texts
    assert reader.texts.count("a <b>page</b> & more") == 2
    assert reader.texts.count("black?white") == 2


def test_the_command_writes_it(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), page())
    sheet = tmp_path / "sheet.HTML"
    told = ("--threshold", 200, "--strength", 1.6, "--precision", "fp32", "-q")
    result = compare(tmp_path / "small.png", "-o", sheet, *told)
    assert (result.exit_code, result.output) == (0, "")
    texts = Reader(sheet.read_text(encoding="utf-8")).texts
    assert "white above 200" in texts
    assert any("by lite in fp32, line strength 1.6." in text for text in texts)


def test_slider_in_a_browser(text: str, tmp_path: Path) -> None:
    (sheet := tmp_path / "sheet.html").write_text(text)
    with chromium.page(tmp_path / "profile") as tab:
        tab.open(sheet.as_uri())
        cut = "getComputedStyle(document.querySelector('.over')).clipPath"
        assert tab.evaluate(cut) == "inset(0px 0px 0px 50%)"
        focused = ""
        for _ in range(8):  # table, two links, details
            tab.press("Tab", 9)
            focused = tab.evaluate("document.activeElement.type ?? ''")
            if focused == "range":
                break
        assert focused == "range"
        for _ in range(3):
            tab.press("ArrowRight", 39)
        assert tab.evaluate(cut) == "inset(0px 0px 0px 53%)"
        assert tab.evaluate("document.activeElement.ariaValueText") == "53 % original"
        tab.press("Home", 36)
        assert tab.evaluate(cut) == "inset(0px 0px 0px 0%)"  # the sketch alone

        tab.evaluate("document.querySelector('.pair').scrollIntoView()")
        box = tab.evaluate("document.querySelector('.pair').getBoundingClientRect().toJSON()")
        tab.call(
            "Input.dispatchMouseEvent",
            type="mousePressed",
            button="left",
            buttons=1,
            x=box["x"] + box["width"] / 4,
            y=box["y"] + 5,
        )
        assert tab.evaluate(cut) == "inset(0px 0px 0px 25%)"

        loaded = "[...document.images].filter(image => image.naturalWidth == 120).length"
        assert tab.evaluate(loaded) == 13
        asked = [
            event["params"]["request"]["url"].split(":")[0]
            for event in tab.events
            if event["method"] == "Network.requestWillBeSent"
        ]
        assert set(asked) == {"file", "data"}
        assert not [event for event in tab.events if event["method"] == "Log.entryAdded"]
