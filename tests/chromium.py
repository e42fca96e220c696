"""A headless Chromium, driven by the DevTools protocol through a pair of pipes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from conftest import skip

NAMES = ("chromium", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)


class Page:
    """A tab of it. events: what it told of by itself."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self.events: list[dict[str, Any]] = []
        self._commands, self._answers = commands, answers
        self._count, self._session = 0, ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        command = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            command["sessionId"] = self._session
        self._commands.write(json.dumps(command).encode() + b"\0")
        self._commands.flush()
        while (message := self._next()).get("id") != self._count:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def evaluate(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def _next(self) -> dict[str, Any]:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "Chromium has ended"
            message += byte
        return json.loads(message)


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A tab of a browser whose profile is in the folder. Without Chromium the test is skipped, or
    fails where SKETCHIFY_REQUIRE_CHROMIUM is set.
    """
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        skip("no Chromium", unless="SKETCHIFY_REQUIRE_CHROMIUM")
    from_test, to_browser = os.pipe()
    from_browser, to_test = os.pipe()

    # It reads its descriptor 3 and writes 4.
    command = f'exec "$@" 3<&{from_test} 4>&{to_test}'
    process = subprocess.Popen(
        ["bash", "-c", command, "bash", program, *FLAGS, f"--user-data-dir={folder}"],
        pass_fds=(from_test, to_test),
        stderr=subprocess.DEVNULL,
    )
    os.close(from_test)
    os.close(to_test)
    deadline = threading.Timer(30, process.kill)
    deadline.start()
    with open(to_browser, "wb") as commands, open(from_browser, "rb") as answers:  # noqa: PTH123
        try:
            yield Page(commands, answers)
        finally:
            deadline.cancel()
            process.kill()
            process.wait()
