"""Sharing a run on the Hugging Face hub: exactly the files of an allow-list, and never data unasked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id

from diffrgen.errors import DataError
from diffrgen.pipeline.hub import NEEDED, REPORTS, HubName
from diffrgen.pipeline.options import PHANTOM
from diffrgen.sharing.card import CARD, write_card
from diffrgen.sharing.facts import RunFacts
from diffrgen.sharing.options import ShareOptions
from diffrgen.sharing.privacy import WITH_FOLDERS, without_folders

# Further files that describe a run; not predictions, which contain the reference reports of the split.
TOLD = (
    *(CARD, "curves.png", "train.json", "training.json", "data.json", "metrics.jsonl", "retriever/fit.json"),
    *("initialisation.json", "lineage.json"),
    *("evaluation/*/metrics.json", "evaluation/*/table.md", "evaluation/*/evaluation.json"),
)
SHAREABLE = (*NEEDED, *TOLD)


@dataclass(frozen=True)
class SharedFile:
    """A file of the upload: its name there, and its content (a path where that is the file's own)."""

    name: str
    content: Path | bytes

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def shared_files(run: Path, *, reports: bool) -> list[SharedFile]:
    """Return the files of `run` that are on the allow-list, in order of their names; those of REPORTS if `reports`."""
    return sorted(_shared_files(run, reports=reports), key=lambda file: file.name)


def _shared_files(run: Path, *, reports: bool) -> Iterator[SharedFile]:
    for path in run.rglob("*"):
        name = path.relative_to(run).as_posix()
        allowed = any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in SHAREABLE)
        if allowed and path.is_file() and (reports or name not in REPORTS):
            yield SharedFile(name, without_folders(path) if name in WITH_FOLDERS else path)


def check_may_share(facts: RunFacts, options: ShareOptions) -> None:
    """Raise DataError if the run was trained on other data than the phantom and the options do not confirm the upload."""
    if facts.settings.data.data == PHANTOM or options.i_may_share_the_reports or options.without_reports:
        return
    raise DataError(
        f"{options.run}: not uploaded. The run was trained on {facts.data.name}, and its index holds the "
        f"{facts.indexed['texts']:,} reports of {facts.indexed['studies']:,} training studies, word for word, with their "
        "ids. Data under a data use agreement (MIMIC-CXR: PhysioNet's credentialed licence) must not be passed on. "
        "If the terms of your data allow it, pass --i-may-share-the-reports; --without-reports uploads the run without "
        "its index, for others who have the data (whether weights learned from them may be shared, the terms say too)"
    )


def share(options: ShareOptions) -> str:
    """Upload the run in one commit and return its address, or the list of the files for `dry_run`.

    The card is written first where no person has edited it. Raises DataError for a folder that is no finished run, data
    that may not be shared, a repository that is public where `public` was not asked for, and what the hub refuses.
    """
    name = _repository(options.name)
    facts = RunFacts.read(options.run)
    check_may_share(facts, options)
    write_card(options.run)
    files = shared_files(options.run, reports=not options.without_reports)
    if options.dry_run:
        return "\n".join(f"{file.size:>13,}  {file.name}" for file in files)
    try:
        return _upload(name, files, public=options.public)
    # OSError: no token, or an error of the hub.
    except (OSError, HTTPError) as error:
        raise DataError(f"{name}: the hub did not take the run; log in with hf auth login, or see: {error}") from error


def _repository(name: str) -> str:
    parsed = HubName.parse(name)
    needed = f"needed the name of a model repository as owner/name, got {name!r}"
    if parsed is None or parsed.revision is not None:
        raise DataError(needed)
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise DataError(f"{needed}: {error}") from error
    return name


def _upload(name: str, files: list[SharedFile], *, public: bool) -> str:
    api = HfApi()
    api.create_repo(name, private=not public, exist_ok=True)
    # An existing repository keeps its visibility.
    if not public and not api.model_info(name).private:
        raise DataError(f"{name}: this repository is public; pass --public if that is meant, or choose another name")
    operations = [CommitOperationAdd(file.name, file.content) for file in files]
    commit = api.create_commit(name, operations, commit_message="Share a run of DiffRGenNet")
    return str(commit.commit_url)
