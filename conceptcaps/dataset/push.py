"""The finished dataset to the hub: resumable, private unless asked otherwise, and a dry run that says what would go."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from conceptcaps.dataset.layout import FOLDER, STATISTICS
from conceptcaps.errors import InputError, describe
from conceptcaps.rundir import RunDir

logger = logging.getLogger(__name__)

_TOKEN_HELP = "Make a token with write access, then run `hf auth login` or set HF_TOKEN"


@dataclass(frozen=True)
class Upload:
    """What a push would send, or has sent.

    Attributes:
        repo: the dataset repository, 'owner/name'.
        private: whether it is made private where it does not exist yet.
        files: (path in the repository, bytes), sorted.
        url: where it is; empty after a dry run.
    """

    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]
    url: str = ""

    @property
    def num_bytes(self) -> int:
        return sum(size for _, size in self.files)

    def __str__(self) -> str:
        access = "private" if self.private else "public"
        what = f"{len(self.files)} files, {self.num_bytes / 2**20:.1f} MiB, to {access} dataset {self.repo}"
        return f"sent {what}: {self.url}" if self.url else f"would send {what}"


def push(run: RunDir, repo: str, private: bool = True, dry_run: bool = False) -> Upload:
    """Upload `dataset/` of a run. An interrupted upload goes on where it stopped.

    Raises:
        InputError: no finished dataset, a run that is not on this machine, a name that is none, a token that is absent
            or may not write, or a hub that cannot be reached.
    """
    if not run.exists(FOLDER, STATISTICS):
        raise InputError(run.uri(FOLDER), "holds no finished dataset", "Run `conceptcaps dataset` first")
    if not run.is_local:
        raise InputError(run.uri(), "is not on this machine", "Copy the run's dataset/ here, then push that run")
    _check_name(repo)
    planned = Upload(repo, private, _files(run))
    return planned if dry_run else _send(run, planned)


def _files(run: RunDir) -> tuple[tuple[str, int], ...]:
    root = Path(run.path(FOLDER))
    found = [p for p in root.rglob("*") if p.is_file() and ".cache" not in p.relative_to(root).parts]
    return tuple(sorted((p.relative_to(root).as_posix(), p.stat().st_size) for p in found))


def _check_name(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"repository {repo!r}", f"is no name of a repository ({error})", "Write owner/name") from error
    if "/" not in repo:
        raise InputError(f"repository {repo!r}", "has no owner", "Write owner/name")


def _send(run: RunDir, planned: Upload) -> Upload:
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError

    if not get_token():
        raise InputError("the hub's token", "is absent", _TOKEN_HELP)
    api = HfApi()
    try:
        url = api.create_repo(planned.repo, repo_type="dataset", private=planned.private, exist_ok=True)
        # Data files of an earlier push that have no successor would still match the card's patterns: out with them.
        api.upload_folder(
            repo_id=planned.repo,
            folder_path=run.path(FOLDER),
            repo_type="dataset",
            ignore_patterns=[".cache/*"],
            delete_patterns=["*.parquet"],
            commit_message="Upload the dataset of a ConceptCaps run",
        )
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise InputError("the hub's token", f"may not write to {planned.repo}", _TOKEN_HELP) from error
        raise InputError(f"repository {planned.repo!r}", describe(error), "Try again: sent files are kept") from error
    except OSError as error:
        raise InputError("the hub", f"cannot be reached ({describe(error)})", "Check the network, try again") from error
    return Upload(planned.repo, planned.private, planned.files, str(url))
