"""Reports of other systems for the studies that a run is evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diffrgen.errors import DataError
from diffrgen.evaluation.predictions import read_prediction_file


def contender_files(contenders: Sequence[str], *, taken: Sequence[str] = ()) -> dict[str, Path]:
    """Return the file of each NAME=FILE by its name.

    taken: names of other rows of the table. Raises DataError for an argument of another form, and for a name that is taken
    or comes twice.
    """
    files: dict[str, Path] = {}
    for contender in contenders:
        name, separator, file = contender.partition("=")
        if not (name.strip() and separator and file):
            raise DataError(f"--contender: expected NAME=FILE, got {contender!r}")
        if name in files or name in taken:
            raise DataError(f"--contender: expected a name that no other row of the table has, got {name!r}")
        files[name] = Path(file)
    return files


def read_contenders(files: Mapping[str, Path], ids: Sequence[str]) -> dict[str, list[str]]:
    """Return each system's report of every study in `ids`, in their order; further studies of a file are left out.

    Raises DataError for a file that cannot be read (see `read_prediction_file`), and for a study without a report.
    """
    return {name: _reports(path, ids) for name, path in files.items()}


def _reports(path: Path, ids: Sequence[str]) -> list[str]:
    found = read_prediction_file(path)
    print(f"{path}: {'; '.join(map(str, found.choices))}")
    by_id = {prediction.id: prediction.hypothesis for prediction in found.predictions}
    missing = [name for name in ids if name not in by_id]
    if missing:
        raise DataError(
            f"{path}: expected a report for each of the {len(ids)} evaluated studies, got none for {len(missing)}, such as "
            f"{missing[0]!r}; the file has ids such as {next(iter(by_id))!r}"
        )
    return [by_id[name] for name in ids]
