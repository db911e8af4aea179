"""Messages: none unless asked for, of the level asked for, once."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from lensmount.errors import OptionError
from lensmount.specs import logs


@pytest.fixture(autouse=True)
def logger():
    found = logging.getLogger("lensmount")
    before = (found.level, found.propagate, list(found.handlers))
    yield found
    found.level, found.propagate, found.handlers[:] = before[0], before[1], before[2]


def test_nothing_is_configured_without_the_variable(logger, monkeypatch):
    monkeypatch.delenv("LENSMOUNT_LOG", raising=False)
    handlers = list(logger.handlers)
    logs.configure()
    assert logger.handlers == handlers


def test_the_variable_shows_messages_once(logger, monkeypatch, capsys):
    monkeypatch.setenv("LENSMOUNT_LOG", "info")
    logs.configure()
    logs.configure()
    logs.log("host", "info", "selected %s", "onnx-fp32")
    logs.log("host", "debug", "why not %s", "torch-fp32")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].endswith("INFO    lensmount.host: selected onnx-fp32")


def test_a_later_level_takes_the_place_of_the_first(monkeypatch, capsys):
    monkeypatch.setenv("LENSMOUNT_LOG", "warning")
    logs.configure()
    monkeypatch.setenv("LENSMOUNT_LOG", "DEBUG")
    logs.configure()
    logs.log("store", "debug", "fetched")
    assert "lensmount.store: fetched" in capsys.readouterr().err


def test_a_wrong_level_is_refused(monkeypatch):
    monkeypatch.setenv("LENSMOUNT_LOG", "loud")
    with pytest.raises(OptionError, match="LENSMOUNT_LOG is not a level") as caught:
        logs.configure()
    assert caught.value.expected == "debug, info, warning, error"


def test_a_programs_own_handler_gets_the_messages(caplog):
    with caplog.at_level("DEBUG", "lensmount"):
        logs.log("host", "debug", "discovered %d plugins", 3)
    assert caplog.messages == ["discovered 3 plugins"]


def test_logging_is_not_imported_for_nobody():
    code = (
        "import sys; from lensmount.specs import logs; logs.log('host', 'info', 'x'); print('logging' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
