"""One thread, no network, no cache outside the test's own folder: what every test may count on; and their order."""

import os
import signal
from collections.abc import Generator
from pathlib import Path

import pytest

from helpers.ranks import preload

# Before torch is imported anywhere: two pytest workers with two threads each would fight over the cores.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"
# A shell lets what it starts in the background ignore ^C, and Python then sets no handler; some tests press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
preload()

# The longest first, so that no process is left alone with one of them at the end.
LONGEST = (
    "training/run/test_learning_on_rooms.py",
    "fuzzing/test_kills.py",
    "training/processes/test_signals.py",
    "test_wheel.py",
    "training/processes/test_compiling.py",
    "training/processes/test_fsdp2.py",
    "training/processes/test_distributed_methods.py",
    "training/processes/test_distributed.py",
    "scripts/test_run_pretrain.py",
    "benchmarks/test_data_loading.py",
    "experiments/test_demo.py",
    "experiments/test_video_experiment.py",
    "data/sources/rooms/test_cache.py",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`make test-extras` has installed what its tests need: one that is skipped there has not been run."""
    parser.addoption("--no-skips", action="store_true", help="a test that is skipped has failed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole files in the order of LONGEST, the others after them as they were."""
    tests = Path(__file__).parent
    rank = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """See `pytest_addoption`."""
    report = yield
    if item.config.getoption("no_skips"):
        refuse_skip(report)
    return report


def refuse_skip(report: pytest.TestReport) -> None:
    """Make a failure of a skip, with its reason."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{reason}; this tier skips nothing"


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
