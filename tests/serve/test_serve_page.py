"""The page in a real browser: what people see and do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from chromium import chromium  # noqa: F401
from serving import SCENE, serving

SHOTS = os.environ.get("LENSMOUNT_SCREENSHOTS")  # a folder, to look at them


@pytest.fixture
def shot(tmp_path):
    folder = Path(SHOTS) if SHOTS else tmp_path
    return lambda name: folder / f"{name}.png"


def posts(browser):
    return [url for method, url in browser.requests if method == "POST"]


@pytest.mark.parametrize(("width", "dark"), [(1440, False), (390, True)])
def test_a_dropped_picture(chromium, server, direct, width, dark, shot):  # noqa: F811
    expected = direct(confidence=0.05).confidence.tolist()
    chromium.problems.clear()
    chromium.requests.clear()
    chromium.open(f"http://127.0.0.1:{server.port}/", width, dark=dark)
    chromium.until("document.querySelector('#task').textContent === 'instance-segmentation'")
    chromium.drop("#canvas", SCENE)
    found = chromium.until("document.querySelector('#canvas').dataset.found")
    assert int(found) == sum(score >= 0.4 for score in expected) > 5
    assert chromium.run("document.querySelectorAll('#rows tr').length") == int(found)
    chromium.screenshot(shot(f"page-{width}"))
    # The slider asks nobody.
    chromium.run("document.querySelector('#confidence').focus()")
    chromium.key("End")
    assert chromium.until("document.querySelector('#canvas').dataset.found === '0'")
    chromium.key("Home")
    assert chromium.until(f"document.querySelector('#canvas').dataset.found === '{len(expected)}'")
    assert len(posts(chromium)) == 1
    assert chromium.problems == []
    # Nothing is wider than the window, and everything that can be used has a name.
    assert chromium.run("document.documentElement.scrollWidth <= innerWidth")
    nameless = """[...document.querySelectorAll('input, button, canvas')].filter((e) => e.offsetParent &&
        !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).map((e) => e.outerHTML)"""
    assert chromium.run(nameless) == []
    assert {url.split("/")[2] for _, url in chromium.requests if url.startswith("http")} == {f"127.0.0.1:{server.port}"}


def test_the_example_and_the_keyboard(chromium, server):  # noqa: F811
    chromium.problems.clear()
    chromium.open(f"http://127.0.0.1:{server.port}/", 1440)
    chromium.until("document.querySelector('#task').textContent")
    chromium.run("document.querySelector('#scene').focus()")
    chromium.key("Enter")
    assert int(chromium.until("document.querySelector('#canvas').dataset.found")) > 5
    assert chromium.problems == []


def test_what_is_wrong_is_said(chromium, server):  # noqa: F811
    chromium.open(f"http://127.0.0.1:{server.port}/", 390)
    chromium.until("document.querySelector('#task').textContent")
    chromium.run(
        "(() => { const data = new DataTransfer(); "
        "data.items.add(new File(['no picture'], 'a.png', {type: 'image/png'}));"
        "document.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true})); })()"
    )
    assert "cannot show" in chromium.until("document.querySelector('#status').textContent")


def test_a_key_is_asked_for(chromium):  # noqa: F811
    with serving(api_key="key-of-the-page") as client:
        chromium.open(f"http://127.0.0.1:{client.port}/", 390)
        chromium.until("!document.querySelector('#key-part').hidden")
        chromium.run("document.querySelector('#key').value = 'key-of-the-page'; document.querySelector('#key').focus()")
        chromium.key("Enter")
        chromium.until("document.querySelector('#task').textContent")
        chromium.click("#scene")
        assert int(chromium.until("document.querySelector('#canvas').dataset.found")) > 5


@pytest.mark.nightly  # torch, for a click
def test_clicks_for_masks(chromium, tmp_path, shot):  # noqa: F811
    pytest.importorskip("torch")
    import sam2_tiny

    sam2_tiny.write_folder(tmp_path / "sam2")
    with serving([f"sam2/hiera_tiny={tmp_path / 'sam2'}"]) as client:
        chromium.problems.clear()
        chromium.requests.clear()
        chromium.open(f"http://127.0.0.1:{client.port}/", 1440)
        chromium.until("document.querySelector('#task').textContent === 'interactive-segmentation'")
        chromium.drop("#canvas", SCENE)
        chromium.until("document.querySelector('#status').textContent.includes('Click')")
        assert posts(chromium) == []
        chromium.click("#canvas", 0.9, 0.3)
        chromium.until("document.querySelector('#canvas').dataset.found === '1'")
        chromium.click("#canvas", 0.1, 0.8, modifiers=8)  # Shift
        chromium.until("document.querySelector('#status').textContent.includes('ms')")
        chromium.run("document.querySelector('#canvas').focus()")
        for name in ("ArrowLeft", "Enter", "n", "Backspace"):
            chromium.key(name)
        chromium.until("!document.querySelector('#canvas').hasAttribute('aria-busy')")
        chromium.screenshot(shot("page-clicks"))
        assert len(posts(chromium)) == 5 and all(url.endswith("/v1/predict/sam2/hiera_tiny") for url in posts(chromium))
        assert chromium.problems == []
