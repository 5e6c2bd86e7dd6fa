"""Hub names to folders, through huggingface_hub: its cache, its environment variables, our one error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NoReturn

from pocketbert.bundles import local_folder
from pocketbert.errors import CheckpointError

_token: ContextVar[str | bool | None] = ContextVar("token", default=None)


@contextmanager
def hub_token(token: str | bool | None) -> Iterator[None]:
    """Use `token` for the hub while the block runs, in place of that of `hf auth login`; None changes nothing."""
    before = _token.set(_token.get() if token is None else token)
    try:
        yield
    finally:
        _token.reset(before)


def resolve(
    name_or_path: str | Path,
    *,
    files: Sequence[str],
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model: `name_or_path` itself, that of a bundled model, or the hub's snapshot.

    Args:
        name_or_path: a folder, the name of a bundled model, or one on the hub such as `google/mobilebert-uncased`.
        files: names or glob patterns of the files to download; one that the hub does not have is not an error here.
        revision: branch, tag or commit on the hub; `main` by default.
        cache_dir: where downloads are kept; huggingface_hub's folder by default.
        local_files_only: use the download cache only, as with HF_HUB_OFFLINE=1.

    Raises:
        CheckpointError: neither folder nor model, or the hub does not give it.
    """
    if (folder := local_folder(name_or_path)) is not None:
        return folder
    name = _hub_name(name_or_path)
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import tqdm

    class PatientBar(tqdm):
        """A progress bar that appears when a download takes a while, and not for cached files."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"delay": 1, **options})  # type: ignore[no-untyped-call]

    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_patterns=list(files),
            token=_token.get(),
            tqdm_class=PatientBar,
        )
    # Whatever goes wrong: the library's own errors, those of its HTTP library (it has changed that twice), a full disk.
    except Exception as error:
        _fail(name, revision, error)
    return Path(snapshot)


def list_files(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> list[str]:
    """Names of the files of a model on the hub, or of those in the cache if the hub cannot be reached."""
    hub_name = _hub_name(name)
    if not local_files_only:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        try:
            # Not `list_repo_files`, which tries for 23 seconds before it gives up.
            info = HfApi().model_info(hub_name, revision=revision, token=_token.get())
            return [file.rfilename for file in info.siblings or ()]
        except RevisionNotFoundError as error:
            _fail(hub_name, revision, error)
        except Exception:
            pass  # offline, or the hub is down: the cache may suffice, and if not `resolve` raises
    folder = resolve(name, files=(), revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    return [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]


def _hub_name(name_or_path: str | Path) -> str:
    """`name_or_path` if the hub could have a model of that name; `./x`, `/x` or `a/b/c` can only be a folder."""
    name = str(name_or_path)
    if name.startswith((".", "/", "~")) or "\\" in name or name.count("/") > 1 or not all(name.split("/")):
        if Path(name).exists():
            raise CheckpointError(f"{name} is a file: give its folder, or a file of weights")
        raise CheckpointError(f"{name!r}: no such folder, and not a valid name of a model on the hub")
    return name


def _fail(name: str, revision: str | None, error: Exception) -> NoReturn:
    from huggingface_hub import errors

    where = f"{name!r} is not a folder"
    if isinstance(error, errors.HFValidationError):
        problem = "and not a valid name of a model on the hub"
    elif isinstance(error, errors.GatedRepoError):
        problem = (
            "and the model of that name on the hub is gated: request access on its page, then log in with `hf auth "
            "login`"
        )
    elif isinstance(error, errors.RepositoryNotFoundError):
        problem = (
            "and the hub has no public model of that name: check the spelling; for a private model run `hf auth login`"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        problem = f"and the hub's model of that name has no revision {revision!r}"
    elif isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        cause = error.__cause__
        offline = cause is None or isinstance(cause, errors.OfflineModeIsEnabled)
        why = "offline mode" if offline else f"the hub cannot be reached: {_first_line(cause)}"
        version = f" at revision {revision!r}" if revision else ""
        problem = f"and its files{version} are not in the download cache ({why}): connect once to download it"
    else:
        problem = f"and the download from the hub failed: {_first_line(error)}"
    raise CheckpointError(f"{where}, {problem}") from error


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
