# Copyright 2026 the m33d-hf authors. Licensed under the Apache License, Version 2.0.
"""`push_to_hub` of models and processors."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


class PushesInOneCommit:
    """`push_to_hub` of models and processors: as transformers has it, but one commit, tried again where a connection
    drops, and with errors that say what to do.

    Files that the repository has besides are left alone, so that a model and its processor are pushed one after the
    other; `scripts/publish.py` sends a whole run with its card.
    """

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
        **save_options: Any,
    ) -> Any:
        """Save and upload; arguments are those of `transformers.utils.PushToHubMixin.push_to_hub`.

        Args:
            repo_id: "organisation/name", or "name" below the user of the token.
            commit_message, commit_description: of the commit.
            private: whether a repository that does not exist yet is created as private.
            token: None is what `hf auth login` or HF_TOKEN left.
            revision: branch.
            create_pr: propose the commit instead of making it.
            max_shard_size: of weight files.
            tags: for the card that is written where the repository has none.
            save_options: for save_pretrained.

        Returns:
            `Sent`: repository, commit, address of the commit.

        Raises:
            HubError: as `send_folder`.
        """
        # Not above: this file is imported with the package, which is light.
        from .hub_upload_m33d import Destination, has_card, prepare_repository, send_folder

        to = Destination(repo_id, revision=revision, private=private, token=token)
        options = save_options | ({} if max_shard_size is None else {"max_shard_size": max_shard_size})
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, **options)  # type: ignore[attr-defined]
            repo = prepare_repository(to)
            if not has_card(repo, to):
                listed = "".join(f"- {tag}\n" for tag in ["m33d", *(tags or ())])
                card = f"---\nlibrary_name: transformers\ntags:\n{listed}---\n\nNo evaluation of this model is known.\n"
                Path(folder, "README.md").write_text(card, encoding="utf-8")
            message = commit_message or f"Upload {type(self).__name__}"
            return send_folder(Path(folder), to, message, description=commit_description, create_pr=create_pr)
