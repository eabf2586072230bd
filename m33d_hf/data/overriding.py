"""Class attributes that describe methods: a subclass that overrides such a method must set the attribute again.

Our transforms and collators defer work to each other in ways that samples do not document (such as mirroring), and
declare this by an attribute. A subclass that overrides the method gets the documented samples unless it sets the
attribute too.
"""

from __future__ import annotations


def restated(cls: type, attribute: str, *methods: str) -> None:
    """For `__init_subclass__`: `attribute` is False if the class overrides one of `methods` without setting it."""
    if attribute not in vars(cls) and any(method in vars(cls) for method in methods):
        setattr(cls, attribute, False)
