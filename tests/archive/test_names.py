from __future__ import annotations

import pytest

from bbans.archive import names
from bbans.archive.names import Listed, Numbered


def test_numbered_names() -> None:
    digits = Numbered("digits/", 98, 4, 3)
    assert list(digits) == ["digits/098", "digits/099", "digits/100", "digits/101"]
    assert list(digits.part(1, 3)) == ["digits/099", "digits/100"]
    assert digits.summary() == "digits/098 to digits/101"
    assert digits.part(0, 1).summary() == "digits/098"
    assert list(Numbered("", 9, 2, 1)) == ["9", "10"]


def test_neighbours_are_joined() -> None:
    numbered = Numbered("a/", 0, 10, 2)
    assert names.join([numbered.part(0, 4), numbered.part(4, 10)]) == (numbered,)
    apart = (numbered.part(0, 4), numbered.part(5, 10))
    assert names.join(apart) == apart
    assert names.join([Listed(("x",)), Listed(("y",)), numbered]) == (Listed(("x", "y")), numbered)


@pytest.mark.parametrize("name", ["a", "a/b.png", ".hidden", "a..b", "caf\udce9", "a b", "naïve/ü", "1"])
def test_names_that_are_taken(name: str) -> None:
    assert names.flaw(Listed((name,))) is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "empty part"),
        ("..", "'..'"),
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("a//b", "empty part"),
        ("./a", "'.'"),
        ("a/", "empty part"),
        ("/etc/passwd", "absolute"),
        ("C:/x", "absolute"),
        ("c:x", "absolute"),
        ("a\\b", "backslash"),
        ("..\\x", "backslash"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("\x1b[2J", "control character"),
        ("x" * 1025, "more than 1024 bytes"),
        ("\ud800", "no text"),
    ],
)
def test_names_that_are_refused(name: str, words: str) -> None:
    flaw = names.flaw(Listed(("good", name)))
    assert flaw and words in flaw and len(flaw) < 200


@pytest.mark.parametrize("prefix", ["../", "/", "C:", "a//", "\0", "a\\"])
def test_prefixes_are_looked_at_too(prefix: str) -> None:
    assert names.flaw(Numbered(prefix, 0, 3, 1))


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("a.png", "a.png"),
        ("b/A.PGM", "b/A.PGM"),
        ("a.jpg", "a.jpg.png"),
        ("digits/042", "digits/042.png"),
        (".png", ".png.png"),
        ("v1.5/x", "v1.5/x.png"),
    ],
)
def test_targets(name: str, target: str) -> None:
    assert names.target(name) == target


def clash(*given: str) -> tuple[str, str] | None:
    return names.clash((name, names.target(name)) for name in given)


def test_clashes() -> None:
    assert clash("a.png", "a.jpg", "b/a.png", "A.png", "a/x", "a/y/z.png") is None
    assert clash("a.png", "b.png", "a.png") == ("a.png", "a.png")
    assert clash("a.jpg", "a.jpg.png") == ("a.jpg", "a.jpg.png")
    assert clash("a", "a.png/x/y") == ("a", "a.png/x/y")  # a.png is to be a file and a folder
    assert clash("a.png/x/y", "z", "a") == ("a.png/x/y", "a")


def test_choosing() -> None:
    assert names.chosen_by("a/b/c", {"a", "a/b/c", "b", "a/b/c/d"}) == {"a", "a/b/c"}
    assert names.chosen_by("ab/c", {"a"}) == set()
