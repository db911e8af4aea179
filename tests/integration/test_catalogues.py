"""Every catalogue entry of every installed plugin resolves: as far as can be told without the network."""

from __future__ import annotations

import re

import pytest

from lensmount import registry
from lensmount.contracts.finder import FetchOptions
from lensmount.store.addresses import parse_hub, parse_web, scheme_of
from lensmount.store.files import safe_name
from lensmount.store.package import PackageFinder

SPDX_LIKE = re.compile(r"^(LicenseRef-)?[A-Za-z0-9][A-Za-z0-9.+-]*$")
SECOND_HAND = ("third-party", "unverified")


def cards():
    return registry.models()


def entries():
    return [
        (card, package, artifact) for card in cards() for package in card.packages for artifact in package.artifacts
    ]


def bad(check, of=entries):
    """The names of entries that a check finds wrong, with what it says."""
    found = []
    for entry in of():
        said = check(*entry)
        if said:
            found.append(f"{entry[0].id}: {said}")
    return found


def test_there_are_catalogues():
    assert len(cards()) > 50
    assert {card.architecture for card in cards()} <= set(registry.default().index.architectures)


def test_addresses_are_well_formed():
    def check(card, package, artifact):
        scheme = scheme_of(artifact.uri)
        if scheme == "hf":
            return None if parse_hub(artifact.uri).file else f"{artifact.uri} names no file"
        if scheme in ("https", "http"):
            return None if parse_web(artifact.uri).secure else f"{artifact.uri} is plain http"
        if scheme == "package":
            return None if PackageFinder().fetch(artifact, FetchOptions(offline=True)) else "absent"
        if scheme == "pypi":
            return None if artifact.sha256 and artifact.size else "a file in a wheel without its hash and size"
        return f"{artifact.uri}: no catalogue of ours uses {scheme}"

    assert bad(check) == []


def test_every_scheme_has_a_source():
    assert bad(lambda card, package, a: scheme_of(a.uri) not in registry.default().index.sources and a.uri) == []


def test_names_are_file_names():
    assert bad(lambda card, package, a: any(safe_name(part) != part for part in a.name.split("/")) and a.name) == []


def test_content_is_fixed_or_the_card_says_that_it_is_not():
    """A commit, a sha256 or at least an md5; where there is none, a note says so and the first download is recorded."""

    def check(card, package, artifact):
        pinned = scheme_of(artifact.uri) == "hf" and parse_hub(artifact.uri).pinned
        if pinned or artifact.sha256 or artifact.md5 or scheme_of(artifact.uri) == "package":
            return None
        told = any(re.search(r"hash|pinned|revision", note) for note in card.notes)
        return None if told else f"{artifact.uri} is neither pinned nor hashed, and no note says so"

    assert bad(check) == []


def test_sizes_are_plausible():
    def check(card, package, artifact):
        if artifact.size is None:
            return None
        least = 1 if artifact.role == "data" else 10_000
        return None if least <= artifact.size <= 20e9 else f"{artifact.name} of {artifact.size} bytes"

    assert bad(check) == []


def test_a_hash_of_the_hub_comes_with_its_size():
    """Both stand in the same pointer file: a published hash without its size was copied badly."""

    def check(card, package, artifact):
        published = artifact.sha256 and artifact.confidence == "published" and scheme_of(artifact.uri) == "hf"
        return f"{artifact.uri} has a hash and no size" if published and artifact.size is None else None

    assert bad(check) == []


def test_licences_are_known():
    def check(card):
        good = card.licence != "unknown" and SPDX_LIKE.fullmatch(card.licence)
        return None if good else f"licence {card.licence!r}"

    assert bad(check, of=lambda: [(card,) for card in cards()]) == []


def test_licences_that_ask_something_come_with_a_notice():
    def check(card):
        asks = re.match(r"A?GPL|CC-BY-NC|PML|LicenseRef", card.licence)
        return f"licence {card.licence} without a notice" if asks and not card.licence_notice else None

    assert bad(check, of=lambda: [(card,) for card in cards()]) == []


def test_facts_from_second_hand_are_marked():
    """`confidence` says how sure each address is; a hash from a third party is told in the notes too."""

    def check(card, package, artifact):
        if artifact.confidence not in ("official", "published", *SECOND_HAND):
            return f"confidence {artifact.confidence!r}"
        if artifact.confidence in SECOND_HAND and not card.notes:
            return f"{artifact.uri} is {artifact.confidence}, and no note says so"
        return None

    assert bad(check) == []


def test_one_address_has_one_content():
    """Two entries with one address promise the same hash and size."""
    promised = {}
    for _, _, artifact in entries():
        promised.setdefault(artifact.uri, set()).add((artifact.sha256, artifact.size, artifact.md5))
    assert {uri: facts for uri, facts in promised.items() if len(facts) > 1} == {}


@pytest.mark.parametrize("architecture", sorted({card.architecture for card in registry.models()}))
def test_each_architecture_can_be_explained(architecture):
    """Each card has a plan: a package is chosen, or every one is rejected with its reasons."""
    for card in registry.models(architecture=architecture):
        plan = registry.explain(card.id)
        assert plan.selected is not None or all(rejection.reasons for rejection in plan.rejected)
