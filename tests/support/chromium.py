"""A real Chromium without a window, driven through the DevTools protocol over two pipes; nothing else is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Browser:
    """One page of a browser. `.problems` are errors of its console, `.requests` what it asked the network for."""

    def __init__(self, binary):
        self._folder = tempfile.mkdtemp()
        read, self._to = os.pipe()
        self._from, write = os.pipe()

        def pipes():  # the browser reads from descriptor 3 and writes to 4; neither end may lie on one of them before
            first, second = os.dup2(read, 63), os.dup2(write, 64)
            os.dup2(first, 3)
            os.dup2(second, 4)

        arguments = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self._folder}", "--no-first-run"]
        arguments += ["--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "about:blank"]
        self._process = subprocess.Popen(
            [binary, *arguments], close_fds=False, preexec_fn=pipes, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(read)
        os.close(write)
        self._left, self._number, self._session = b"", 0, None
        self.problems, self.requests = [], []
        target = next(t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
        self._session = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """The result of a command."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + 30
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self, end):
        while b"\0" not in self._left:
            if not select.select([self._from], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 16)
            if not part:
                raise RuntimeError("the browser is gone")
            self._left += part
        text, _, self._left = self._left.partition(b"\0")
        event = json.loads(text)
        kind, facts = event.get("method"), event.get("params", {})
        if (
            kind == "Runtime.exceptionThrown"
            or (kind == "Log.entryAdded" and facts["entry"]["level"] == "error")
            or (kind == "Runtime.consoleAPICalled" and facts["type"] == "error")
        ):
            self.problems.append(json.dumps(facts)[:500])
        elif kind == "Network.requestWillBeSent":
            self.requests.append((facts["request"]["method"], facts["request"]["url"]))
        return event

    def open(self, url, width, height=900, dark=False):
        """Goes to a page, in a window of a size."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.send("Emulation.setEmulatedMedia", features=scheme)
        self.send("Page.navigate", url=url)
        self.until("document.readyState === 'complete'")

    def run(self, script):
        """The value of an expression."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script, seconds=20):
        """Waits for an expression to be true, and gives its value."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}; status: {self.run('document.body.innerText')[:600]}"
            time.sleep(0.05)
        return value

    def place(self, selector, x=0.5, y=0.5):
        """The place of an element's inside, in the window."""
        script = f"""(() => {{ const element = document.querySelector({selector!r});
            element.scrollIntoView({{block: 'center', behavior: 'instant'}}); const b = element.getBoundingClientRect();
            return [b.left + {x} * b.width, b.top + {y} * b.height]; }})()"""
        return self.run(script)

    def click(self, selector, x=0.5, y=0.5, button="left", modifiers=0):
        """A click of the mouse."""
        left, top = self.place(selector, x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=left, y=top, button=button, clickCount=1,
                      modifiers=modifiers)  # fmt: skip

    def key(self, name, code=None):
        """A key of the keyboard."""
        text = {"text": "\r"} if name == "Enter" else {"text": name} if len(name) == 1 else {}
        numbers = {"Enter": 13, "End": 35, "Home": 36, "Backspace": 8, "Tab": 9, "ArrowLeft": 37, "ArrowRight": 39}
        number = numbers.get(name, ord(name.upper()[0]))
        self.send("Input.dispatchKeyEvent", type="keyDown", key=name, code=code or name, windowsVirtualKeyCode=number,
                  **text)  # fmt: skip
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=code or name, windowsVirtualKeyCode=number)

    def drop(self, selector, path):
        """Drags a file from outside onto an element."""
        x, y = self.place(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def screenshot(self, path):
        """The whole page as a PNG."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        """Ends the browser."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)
        shutil.rmtree(self._folder, ignore_errors=True)


@pytest.fixture(scope="session")
def chromium():
    """Makes browsers; skips where there is none."""
    binary = os.environ.get("LENSMOUNT_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not binary:
        pytest.skip("needs Chromium")
    made = Browser(binary)
    yield made
    made.close()
