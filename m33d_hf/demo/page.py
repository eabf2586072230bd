"""The page: a tab per task."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from m33d_hf.demo import depth, reconstruction, segmentation, videos
from m33d_hf.demo.models import Models
from m33d_hf.errors import MissingDependencyError

TITLE = "M33D: masked 3-D pre-training"
_TABS = {
    "Depth": ("depth",),
    "Segmentation": ("segmentation",),
    "Video": ("clips", "phases"),
    "Reconstruction": ("reconstruction",),
}


def need_gradio() -> Any:
    """The library that draws the page.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import gradio
    except ImportError as error:
        raise MissingDependencyError(
            "the web page requires gradio: pip install 'm33d-hf[demo]', in an environment of its own where Pillow 13 "
            "or newer is needed elsewhere"
        ) from error
    return gradio


def build_page(models: Models, folder: Path, keep_seconds: int = 1800) -> Any:
    """The page as gradio Blocks, with its queue.

    Args:
        models: what it offers.
        folder: for files that visitors get.
        keep_seconds: after which uploads and results are deleted.

    Raises:
        MissingDependencyError: gradio is not installed.
    """
    gradio = need_gradio()
    # A tab that nothing can be done in comes last.
    order = sorted(_TABS, key=lambda name: not models.names(*_TABS[name]))
    build: dict[str, Callable[[Models], None]] = {
        "Depth": lambda offered: depth.build(offered, folder),
        "Segmentation": segmentation.build,
        "Video": videos.build,
        "Reconstruction": reconstruction.build,
    }
    every = max(1, min(60, keep_seconds // 2))
    with gradio.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(every, keep_seconds)) as page:
        gradio.Markdown(
            f"# {TITLE}\nDrop a picture or a video. The machine that runs this page computes on it, and deletes it "
            f"after about {max(1, round(keep_seconds / 60))} min."
        )
        for name in order:
            with gradio.Tab(name):
                build[name](models)
    # Those who come when so many are waiting are told so, and can try again.
    page.queue(max_size=40, default_concurrency_limit=4)
    return page
