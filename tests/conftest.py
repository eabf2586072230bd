"""One thread, no network, no cache outside the test's own folder: what every test may count on."""

import os
from pathlib import Path

import pytest

# Before torch is imported anywhere: two pytest workers with two threads each would fight over the cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"


@pytest.fixture(autouse=True, scope="session")
def m33d_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered rooms and the like go to a folder of this session, shared by the tests of one worker."""
    folder = tmp_path_factory.mktemp("m33d-cache")
    os.environ["M33D_CACHE"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]
