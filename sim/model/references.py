"""Names of a user's own code, as `package.module:name`. They are told apart here; nothing is imported."""

from __future__ import annotations


def is_reference(text: str) -> bool:
    """Whether ``text`` is the name of something in a Python module.

    >>> is_reference("mynet:net"), is_reference("resnet50"), is_reference("C:/net.json")
    (True, False, False)
    """
    module, colon, name = text.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), *name.split(".")))
