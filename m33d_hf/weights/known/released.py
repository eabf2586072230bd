"""Where released weights come from, by the name of their file or repository; for messages, nothing is downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

_NON_COMMERCIAL, _APACHE = "CC BY-NC 4.0, no commercial use", "Apache-2.0"
_IDENTIFIERS = {_NON_COMMERCIAL: "cc-by-nc-4.0", _APACHE: "apache-2.0"}
_SIZES = {"base": "base", "large": "large", "huge": "huge"}
_LETTERS = {"s": "small", "b": "base", "l": "large", "g": "giant"}


@dataclass(frozen=True)
class _Origin:
    """Files of one project.

    Attributes:
        pattern: of a file's or a repository's name; its first group is the size.
        sizes: that group -> the size in the name of the repository on the Hub.
        hub: repository on the Hub with {size}; None if there is none.
        page: where the project lists its files.
        licence: of the weights.
    """

    pattern: re.Pattern[str]
    sizes: dict[str, str]
    hub: str | None
    page: str
    licence: str


_ORIGINS = (
    _Origin(
        re.compile(r"mae_(?:pretrain|visualize)_vit_(base|large|huge)(?![a-z]).*|vit-mae-(base|large|huge)"),
        _SIZES,
        "facebook/vit-mae-{size}",
        "https://github.com/facebookresearch/mae",
        _NON_COMMERCIAL,
    ),
    _Origin(re.compile(r"mae_finetuned_vit_.*"), {}, None, "https://github.com/facebookresearch/mae", _NON_COMMERCIAL),
    _Origin(
        re.compile(r"(?i:(?:.*[-_])?videomae(?:[-_].*?)?[-_](?:vit[-_]?)?(base|large|huge|[blh])(?![a-z]).*)"),
        _SIZES | {"b": "base", "l": "large", "h": "huge"},
        "MCG-NJU/videomae-{size}",
        "https://github.com/MCG-NJU/VideoMAE/blob/main/MODEL_ZOO.md",
        _NON_COMMERCIAL,
    ),
    _Origin(
        re.compile(r"multimae.*|mae-b_dec512d8b.*", re.IGNORECASE),
        {},
        None,
        "https://github.com/EPFL-VILAB/MultiMAE",
        _NON_COMMERCIAL,
    ),
    _Origin(re.compile(r"mae_st.*"), {}, None, "https://github.com/facebookresearch/mae_st", _NON_COMMERCIAL),
    _Origin(
        re.compile(r"dinov2_vit([sblg])14_reg4?_pretrain.*|dinov2-with-registers-(small|base|large|giant)"),
        _LETTERS | {word: word for word in _LETTERS.values()},
        "facebook/dinov2-with-registers-{size}",
        "https://github.com/facebookresearch/dinov2",
        _APACHE,
    ),
    _Origin(
        re.compile(r"dinov2_vit([sblg])14_pretrain.*|dinov2-(small|base|large|giant)"),
        _LETTERS | {word: word for word in _LETTERS.values()},
        "facebook/dinov2-{size}",
        "https://github.com/facebookresearch/dinov2",
        _APACHE,
    ),
    _Origin(
        re.compile(r"dino_(?:deit|vit)(small|base)\d+_pretrain.*|dino-vit([sb])\d+"),
        {},
        None,
        "https://github.com/facebookresearch/dino",
        _APACHE,
    ),
)


def licence_of(origin: str) -> str | None:
    """Licence of released weights, by the name of their file or repository.

    Args:
        origin: path, file name or Hub id as given; a revision behind "@" plays no part.

    Returns:
        its identifier as model cards have it ("cc-by-nc-4.0", "apache-2.0"); None for names of nothing known.
    """
    name = PurePath(origin.partition("@")[0]).name
    known = next((known for known in _ORIGINS if known.pattern.fullmatch(name)), None)
    return None if known is None else _IDENTIFIERS[known.licence]


def where_from(origin: str) -> str:
    """A sentence on where weights called `origin` come from, to be put behind a message that they are not there.

    Args:
        origin: path, file name or Hub id as given; a revision behind "@" plays no part.

    Returns:
        the sentence with a space in front; for names of nothing known, what there is to start from.
    """
    name = PurePath(origin.partition("@")[0]).name
    for known in _ORIGINS:
        match = known.pattern.fullmatch(name)
        if match is None:
            continue
        size = known.sizes.get(next((group for group in match.groups() if group), "").lower())
        hub = None if known.hub is None or size is None else known.hub.format(size=size)
        hub = None if hub == origin.partition("@")[0] else hub
        on_hub = "" if hub is None else f"--init_from {hub} takes them from the Hub; "
        return f" These weights: {on_hub}{known.page} has the original files. Their licence is {known.licence}."
    return (
        " Released weights on the Hub to start from: facebook/vit-mae-base, MCG-NJU/videomae-base and"
        " facebook/dinov2-base; without --init_from the model starts at random."
    )
