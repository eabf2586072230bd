"""What a user says about publishing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from m33d_hf.errors import ConfigError


@dataclass(frozen=True)
class PublishOptions:
    """How a folder is published.

    Attributes:
        repo: "organisation/name".
        evaluations: eval_results.json files or their folders; none looks in the run.
        allow_unevaluated: publish weights that no evaluation is known of; the card says so.
        licence: of the weights, as cards have it; None where the lineage tells.
        dataset_name: of evaluation data that the package does not know by name.
        benchmark: "org/dataset:task" on the Hub whose leaderboard .eval_results is meant for.
        as_stock: publish the exported stock class of transformers.
        include_pictures: upload the run's pictures, which show its data.
        private: create the repository as private.
        tag: of the commit; None is a digest of what is published.
        revision: branch.
        space: a Space's repository that the card links to.
    """

    repo: str
    evaluations: list[Path] = field(default_factory=list)
    allow_unevaluated: bool = False
    licence: str | None = None
    dataset_name: str | None = None
    benchmark: str | None = None
    as_stock: bool = False
    include_pictures: bool = False
    private: bool | None = None
    tag: str | None = None
    revision: str | None = None
    space: str | None = None

    def __post_init__(self) -> None:
        dataset, _, task = (self.benchmark or "a/b:c").partition(":")
        if not task or dataset.count("/") != 1:
            raise ConfigError(f"--benchmark {self.benchmark!r} is not of the form ORG/DATASET:TASK.")
        check_repo(self.repo, "the repository")
        if self.space is not None:
            check_repo(self.space, "--space")


def check_repo(name: str, what: str) -> None:
    """Refuse what is no ORG/NAME.

    Raises:
        ConfigError: as said.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ConfigError(f"{what} is {name!r}: {error}") from error
    if name.count("/") != 1:
        raise ConfigError(f"{what} is {name!r}; write ORG/NAME, where ORG is an organisation or your user name.")
