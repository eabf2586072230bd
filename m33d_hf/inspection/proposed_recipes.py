"""Which recipe is taken, and proposed, where the command names none: the only place that says so."""

from __future__ import annotations

from m33d_hf.errors import ConfigError
from m33d_hf.training.recipe.recipes import recipe_names

FRAMES, CLIPS = "pre-train on frames", "pre-train on clips"
DEPTH, PIXELS = "learn depth from RGB", "learn the labels of pixels"
ACTIONS, PHASES = "learn the labels of clips", "learn the phases of long videos"
# What own data serves for -> its recipe.
OWN = {
    FRAMES: "own/pretrain",
    CLIPS: "own/pretrain_clips",
    DEPTH: "own/depth",
    PIXELS: "own/semseg",
    ACTIONS: "own/video_classification",
    PHASES: "own/phases_clips",
}
# The same of data that has recipes of its own, by source.
PUBLISHED = {
    "scannet": {FRAMES: "scannet_stage1", PIXELS: "scannet_semseg"},
    "nyuv2": {DEPTH: "nyuv2_depth", PIXELS: "nyuv2_semseg"},
    "ucf101": {CLIPS: "ucf101_pretrain", ACTIONS: "ucf101_finetune"},
    "rooms": {
        FRAMES: "rooms/pretrain",
        CLIPS: "rooms/pretrain_clips",
        DEPTH: "rooms/depth",
        PIXELS: "rooms/semseg",
        ACTIONS: "rooms/actions",
    },
    "procedures": {PHASES: "rooms/phases_finetune"},
}
LONG_VIDEOS = ("phases", "procedures")  # sources
_CHECKED_AS = {"ucf101": ACTIONS, **dict.fromkeys(LONG_VIDEOS, PHASES)}


def recipe_for(source: str, purpose: str) -> str:
    """The recipe for data of a source.

    Raises:
        ConfigError: the table names a recipe that the package does not have.
    """
    recipe = {**OWN, **PUBLISHED.get(source, {})}[purpose]
    if recipe not in recipe_names():
        raise ConfigError(f"there is no recipe {recipe}, which is proposed to {purpose}.")
    return recipe


def checked_as(source: str) -> str:
    """The recipe as which data of a source is checked where the command names none."""
    return recipe_for(source, _CHECKED_AS.get(source, FRAMES))
