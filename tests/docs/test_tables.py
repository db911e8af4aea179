"""Tables of the documentation say what the code says; every family and every model id stands on a page."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import pytest

from lensmount import registry

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "docs/models"
spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs/tools/tables.py")
assert spec is not None
assert spec.loader is not None
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_tables_are_those_of_the_code(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text.count("<!-- table: ") == len(tables.PLACE.findall(text)) == text.count("<!-- end -->")
    assert tables.refreshed(text) == text, "python docs/tools/tables.py"


@pytest.mark.parametrize("architecture", ["yolo", "rfdetr", "sam2", "owlv2", "clip", "perception_encoder"])
def test_each_family_has_its_page(architecture: str) -> None:
    text = (MODELS / f"{architecture.replace('_', '-')}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.M)
    wanted = ["Ids", "Weights accepted", "Load options", "Call options", "Outputs", "Export", "Licence"]
    assert [heading for heading in headings if heading in wanted] == wanted
    for table in (f"ids {architecture}", f"load {architecture}", "call lensmount_"):
        assert f"<!-- table: {table}" in text
    assert "![" in text or "**No picture.**" in text
    for task in registry.default().index.architectures[architecture].tasks:
        assert task in text, f"the page does not name the task {task}"


def test_every_model_id_stands_on_a_page() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in MODELS.glob("*.md"))
    named = set(re.findall(r"`([^`\s]+)`", text))
    ids = {name for card in registry.models() for name in (card.id, *card.aliases)}
    assert len(ids) > 200
    assert sorted(ids - named) == []


def test_a_stale_table_is_found() -> None:
    text = "before\n<!-- table: ids shapes -->\n| old |\n<!-- end -->\nafter\n"
    new = tables.refreshed(text)
    assert "`shapes-nano`" in new and "old" not in new
    assert new.startswith("before\n") and new.endswith("\nafter\n")
    assert tables.refreshed(new) == new


def test_an_undescribed_option_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("undescribed")
    exec('def call(value=3):\n    """A call.\n\n    Args:\n        other: Another one.\n    """', vars(module))
    monkeypatch.setitem(sys.modules, "undescribed", module)
    with pytest.raises(KeyError, match="value"):
        tables.call("undescribed:call")
