"""Lines for `--help`: the options of a source, each with its type, default, range and meaning.

The meaning is what the docstring of the source says. Docstrings refer to each other ("as in the `folder` source"),
which is of no use on a command line: there the sentence that is meant stands in the place of the reference.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from m33d_hf.data.options import argument_sentences, for_people
from m33d_hf.data.sources.options import RANGES
from m33d_hf.modeling.fields_m33d import Range, described

_GUESSED = "guessed if left out, and the guess is logged"
_LABELS = "number of classes of the label maps, 1 to 255; or set class_names, palette or label_map"
# An option of one name means the same in every source; these are the ones that several have.
SHARED = {
    "split": "Splits are defined by split_list, by files such as train.txt or splits/train.txt under the root, by "
    "folders named train, validation and test, or else by split_fractions",
    "unit": "frames (each frame an item) or clips (each sequence an item)",
    "rgb": "auto, none, the name of a folder, or a pattern with * (*_left.png, left/*.png)",
    "depth": "auto, none, the name of a folder, or a pattern with * (*_disp.png, depth/*.png)",
    "labels": "auto, none, the name of a folder, or a pattern with *",
    "depth_unit": f"unit of the stored depth: mm, cm, m, tum (1/5000 m), tenth_millimetre, l515 (1/4000 m), kitti "
    f"(1/256 m) or sunrgbd; {_GUESSED}",
    "depth_scale": "stored units per metre, instead of depth_unit: 1000 for millimetres",
    "depth_kind": f"metric, inverse (disparity) or relative; {_GUESSED}",
    "invalid_values": "stored values without a measurement; default 0 and the type's maximum",
    "min_depth": "metres; depth below it counts as invalid",
    "max_depth": "metres; depth above it counts as invalid",
    "align": "refuse, depth_to_rgb or rgb_to_depth, for RGB and depth of different size",
    "orientation": "refuse, as_rgb or upright, for depth and labels beside pictures that EXIF says to turn",
    "every": "keep every k-th frame of a sequence",
    "min_frames": "with unit clips, drop (and list) shorter sequences; null takes clip_length",
    "clip_length": "with unit clips, frames that a clip covers; a run sets num_frames x frame_stride by itself",
    "windows": "with unit clips, parts into which a sequence is cut; null takes as many as whole clips fit",
    "split_list": "file with the names of the split's sequences or frames, one a line; or a mapping from split to file",
    "split_fractions": "shares of the splits, such as {train: 0.8, validation: 0.2}: whole sequences where there are "
    "five or more, else stretches of consecutive frames",
    "validation": "splits in one line: the sequences of the validation split (scene7,scene9; patterns with *), or a "
    "share of whole sequences (0.2); all others are for training",
    "num_classes": _LABELS,
    "class_names": "names of the classes in the order of their numbers: a list, or a text file with one a line",
    "label_offset": "subtracted from every number in the label maps, such as 1 where they count from 1",
    "label_ignore": "numbers in the label maps that count as unlabelled",
    "label_map": "which number becomes which class: {7: 0, 8: 1}, a list, or a file",
    "label_unmapped": "refuse, or ignore numbers that label_map does not contain",
    "clip_span": "source frames that a clip covers; a run sets num_frames x frame_stride by itself",
    "clip_stride": "source frames from one clip's start to the next; null = the span of a clip, without overlap",
    "drop_unlabelled": "leave out clips without a label",
    "require_depth": "leave out (and list) what has no depth; false keeps it as RGB-only",
    "seed": "of what is drawn",
}
_BY_THE_RUN = {"root": "data.root", "split": "data.train_split, --data.eval_split", "cache_dir": "data.cache_dir"}
_SPLITS = "splits.select_split"
# "as in the `folder` source", ", see `splits.select_split`", "(see `m33d_hf.data.depth.maps`)": no use to a user.
_POINTER = re.compile(r"[,;:]?\s*\(?(\bsee|\bas in)\s+(?:the\s+)?`([^`]+)`(?:\s+source)?\)?")


def describe_source(name: str, source: type, types: Mapping[str, Any]) -> list[str]:
    """What `--help` says of a source.

    Args:
        name: of the source.
        source: its class.
        types: option -> type.
    """
    documentation = inspect.getdoc(source) or ""
    sentences = argument_sentences(documentation)
    summary = documentation.partition("\nArgs:")[0].strip()
    summary = f"The source {name}: {for_people(_POINTER.sub('', summary))}"
    lines = [*summary.splitlines(), "", f"Options of the source {name}:"]
    seen: set[str] = set()
    for option, parameter in inspect.signature(source).parameters.items():
        sentence = sentences.get(option, "")
        grouped = list(sentences.values()).count(sentence) > 1
        lines += _option(option, parameter.default, types[option], meaning(option, sentence, grouped, sentence in seen))
        seen.add(sentence)
    return lines


def _option(option: str, default: Any, hint: Any, sentence: str) -> Iterator[str]:
    stated = "required" if default is inspect.Parameter.empty else f"default {_as_flag(default)}"
    stated = "the splits to read" if option == "split" else stated
    key = _BY_THE_RUN.get(option, f"data.options.{option}")
    yield f"  --{key} ({stated}; {described(hint)})"
    own = next((extra for extra in typing.get_args(hint)[1:] if isinstance(extra, Range)), RANGES.get(option))
    words = "" if own is None else own.words()
    text = " ".join(part for part in (sentence, _sentence(words[:1].upper() + words[1:])) if part)
    yield from textwrap.wrap(text, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)


def meaning(option: str, sentence: str, grouped: bool = False, repeated: bool = False) -> str:
    """What an option means, without references to code.

    Args:
        option: its name.
        sentence: of the docstring; may be empty, or refer to another place.
        grouped: the sentence is that of several options, of which the shared sentences say what each means.
        repeated: it has been said for another option of the group.
    """
    shared = SHARED.get(option, "")
    references = _POINTER.findall(sentence)
    if not references:
        return _sentence(sentence or shared)
    own = re.sub(r"^[\s,;:.]*(?:but\s+)?", "", _POINTER.sub("", sentence))
    if any(place == _SPLITS for _, place in references):
        parts = [own, shared]
    elif grouped:
        parts = [shared, "" if repeated and shared else own]
    else:
        parts = [shared, own] if references[0][0] == "as in" or not own else [own]
    return " ".join(_sentence(part) for part in parts if part)


def _as_flag(default: Any) -> str:
    if isinstance(default, str):
        return default
    try:
        return json.dumps(default)
    except TypeError:
        return str(default)


def _sentence(text: str) -> str:
    """With a full stop; words in lower case are often names of values, and stay as they are."""
    text = for_people(text.strip())
    return text if not text or text[-1] in ".!?" else f"{text}."
