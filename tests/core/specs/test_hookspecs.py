"""The examples in the hooks' documentation run, and every hook has one."""

from __future__ import annotations

import doctest
import inspect

import lensmount.specs.hookspecs
from lensmount.specs.hookspecs import LensmountHooks


def test_examples_run():
    result = doctest.testmod(lensmount.specs.hookspecs)
    assert result.failed == 0
    assert result.attempted >= 10


def test_every_hook_has_an_example_and_takes_nothing():
    hooks = {name: value for name, value in vars(LensmountHooks).items() if name.startswith("lensmount_")}
    assert set(hooks) == {
        "lensmount_architectures",
        "lensmount_model_cards",
        "lensmount_backends",
        "lensmount_sources",
        "lensmount_caches",
        "lensmount_readers",
        "lensmount_commands",
        "lensmount_exporters",
        "lensmount_selectors",
    }
    for name, hook in hooks.items():
        assert ">>> @hookimpl" in (hook.__doc__ or ""), name
        assert list(inspect.signature(hook).parameters) == ["self"], name
