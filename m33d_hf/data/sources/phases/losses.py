"""Reports the labels that are lost when a recording was cut short after annotation."""

from __future__ import annotations

from m33d_hf.data.plural import plural
from m33d_hf.data.sources.phases.alignment import Timing, annotated_end
from m33d_hf.data.sources.phases.annotations import Annotation


def lost_labels(annotation: Annotation, timing: Timing) -> str:
    """A sentence on annotations after the end of a video that was cut short; empty if there are none.

    Args:
        annotation: what its file says, accepted by `frame_phases`.
        timing: of the video.
    """
    if not timing.lost or not len(annotation.starts):
        return ""
    end = annotated_end(annotation, timing)
    seconds = annotation.unit == "seconds"
    behind = (end - timing.duration) * (timing.fps or 1.0) if seconds else timing.covered(end) - timing.num_frames
    frames = round(behind)
    if frames < 1:
        return ""
    length = f"{frames / timing.fps:.1f} s, {plural(frames, 'frame')}" if timing.fps else f"{plural(frames, 'frame')}"
    return f"{annotation.path.name} continues after its end ({length}); these labels are not used"
