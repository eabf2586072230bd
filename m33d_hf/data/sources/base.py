"""What every reader of an on-disk format offers: a list of lazily read videos (an image is a video of one frame)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from m33d_hf.data.sample import VideoHandle

if TYPE_CHECKING:
    from m33d_hf.modeling.depth_m33d import DepthSpec


@runtime_checkable
class Source(Protocol):
    """A data set as it lies on disk: it reads and aligns, and settles units; it never augments.

    Attributes:
        name: the name under which `build_source` knows it.
        class_names: names of the segmentation classes, in id order; None without segmentation labels.
        action_names: names of the clip labels, in id order; None without clip labels.
        depth_spec: unit and kind of the depth that `VideoHandle.read` returns; None without depth.
    """

    name: str
    class_names: list[str] | None
    action_names: list[str] | None
    depth_spec: DepthSpec | None

    def __len__(self) -> int:
        """Number of videos or images."""

    def __getitem__(self, index: int) -> VideoHandle:
        """Handle number `index`: cheap, nothing is decoded before its `read`.

        Raises:
            IndexError: `index` lies outside the source.
        """

    def digest(self) -> str:
        """Hexadecimal digest of the content (or, for large trees, of the listing): equal data, equal digest."""
