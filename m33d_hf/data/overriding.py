"""What a class says of its methods holds for those methods: who writes one anew says it anew.

Our transforms and collators leave work to each other that the documentation of samples does not speak of (mirroring,
say). They say so by an attribute. A subclass with a method of its own gets what is documented, until it says the same.
"""

from __future__ import annotations


def restated(cls: type, attribute: str, *methods: str) -> None:
    """For `__init_subclass__`: `attribute` is False where the class writes one of `methods` without stating it."""
    if attribute not in vars(cls) and any(method in vars(cls) for method in methods):
        setattr(cls, attribute, False)
