"""What `predict.py --help` says."""

import pytest

from m33d_hf.inference.prediction.clips import ClipTask
from m33d_hf.inference.prediction.depth import DepthTask
from m33d_hf.inference.prediction.phases import PhaseTask
from m33d_hf.inference.prediction.reconstructions import ReconstructionTask
from m33d_hf.inference.prediction.segmentation import SegmentationTask
from m33d_hf.scripts.predict import main


def test_help_names_every_kind_of_output_that_save_takes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    for task, known in (
        ("Depth", DepthTask.known),
        ("segmentation", SegmentationTask.known),
        ("clips", ClipTask.known),
        ("long videos", PhaseTask.known),
        ("reconstructions", ReconstructionTask.known),
    ):
        assert f"{task}: {' '.join(known)}" in told
