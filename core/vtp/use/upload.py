"""A model to the hub of Hugging Face."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vtp.errors import ConfigError, RunError
from vtp.storage import write_text_atomic
from vtp.use.card import model_card

if TYPE_CHECKING:
    from vtp.use.model import Model

__all__ = ["upload"]


def upload(
    model: Model, name: str, *, private: bool | None, token: str | None, revision: str | None, message: str
) -> str:
    """What :meth:`Model.push_to_hub` does.

    Raises:
        ConfigError: ``name`` is none of the hub.
        RunError: the hub cannot be reached, or does not want it.
    """
    from huggingface_hub import HfApi

    from vtp.use.loading import ON_HUB

    if not ON_HUB.fullmatch(name):
        raise ConfigError(f"push_to_hub: {name!r} must be organisation/name, or your own name in place of the first.")
    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = model.save(Path(temporary) / name.rpartition("/")[2])
        write_text_atomic(folder / "README.md", model_card(model, name))
        try:
            address = api.create_repo(name, private=private, exist_ok=True)
            if api.file_exists(name, "README.md", revision=revision):
                (folder / "README.md").unlink()
            api.upload_folder(repo_id=name, folder_path=folder, revision=revision, commit_message=message)
        except Exception as error:  # of several libraries: no network, no token, no right to write
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(
                f"push_to_hub: {name} was not uploaded to the hub ({reason}). Is there a network, and does "
                "`hf auth whoami` know somebody who may write there? model.save(FOLDER) needs neither."
            ) from error
    return str(address)
