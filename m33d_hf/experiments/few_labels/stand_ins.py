"""A model that is not trained yet in the place of one that will be: what starts from it can be looked at before."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import cast

from transformers import PreTrainedModel

from m33d_hf.errors import ConfigError, M33DError
from m33d_hf.experiments.few_labels.opening import Opened
from m33d_hf.training.tasks.class_numbers import write_classes


@contextmanager
def stand_in(found: Opened, called: str) -> Iterator[str]:
    """A folder with the model as it is before its training, and what its run leaves beside it; gone after the block.

    Args:
        found: the run that will train it.
        called: what messages call the folder.

    Raises:
        ConfigError: for every error of ours in the block, whose message may name the folder.
    """
    with tempfile.TemporaryDirectory(prefix="m33d-") as folder:
        with redirect_stderr(io.StringIO()):  # a bar for a file that nobody asked for
            cast(PreTrainedModel, found.model).save_pretrained(folder)
        table = found.task.class_table(found.model, found.train_set)
        if table is not None:
            write_classes(folder, table)
        try:
            yield folder
        except M33DError as error:
            raise ConfigError(str(error).replace(folder, called)) from error
