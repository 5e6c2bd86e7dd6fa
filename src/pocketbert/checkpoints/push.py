"""Model folders to the hub, through huggingface_hub: its token, its endpoint, our one error."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from pocketbert.errors import CheckpointError

#: What a folder holds besides the model: its texts, paths and training states belong to the user.
KEPT = ("report.html", "run.json", "bad-rows.jsonl", "texts-without-logits.jsonl")


def prepare_push(name: str) -> None:
    """Make a private model on the hub, unless there is one of this name, and so prove that it can be pushed to.

    Args:
        name: `user/model`, or `model` for the user whose token it is.

    Raises:
        CheckpointError: the name is none, there is no token, it may not write, or the hub cannot be reached.
    """
    from huggingface_hub import HfApi

    try:
        HfApi().create_repo(name, private=True, exist_ok=True)
    except Exception as error:
        _fail(name, error)


def push(folder: Path, name: str) -> str:
    """Push a model: weights, configuration, tokenizer, card and its pictures.

    Predictions, the report, the manifest and training states stay in the folder.

    Args:
        folder: the folder of a model.
        name: as for `prepare_push`.

    Returns:
        The address of the model.

    Raises:
        CheckpointError: it cannot be pushed; the folder is as it was.
    """
    from huggingface_hub import HfApi

    files = sorted(file.name for file in folder.iterdir() if file.is_file() and file.name not in KEPT)
    files = [file for file in files if not file.startswith(".")]
    try:
        api = HfApi()
        url = api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=url.repo_id, folder_path=folder, allow_patterns=files, commit_message="Push from PocketBERT"
        )
    except Exception as error:
        _fail(name, error, f". The model is in {folder}: the same command with --resume pushes it")
    return str(url)


def _fail(name: str, error: Exception, then: str = "") -> NoReturn:
    from huggingface_hub import errors

    if isinstance(error, errors.HFValidationError):
        problem = f"is not a valid name of a model on the hub: {_first_line(error)}"
    elif isinstance(error, errors.OfflineModeIsEnabled):
        problem = "needs the hub, and HF_HUB_OFFLINE is set"
    elif isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        problem = (
            f"is refused by the hub: run `hf auth login`, or set HF_TOKEN, with a token that has write access{then}"
        )
    else:
        problem = f"failed: {_first_line(error)}{then}"
    raise CheckpointError(f"--push {name} {problem}") from error


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
