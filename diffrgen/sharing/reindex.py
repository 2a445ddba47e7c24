"""The index of a run that was shared without its reports, made of one's own copy of the data."""

from __future__ import annotations

import shutil
from dataclasses import replace

from diffrgen.errors import DataError
from diffrgen.pipeline.options import DataOptions
from diffrgen.pipeline.run_folder import RunFolder
from diffrgen.pipeline.settings import save_json
from diffrgen.records import read_annotation
from diffrgen.retrieval import build_index, load_retriever
from diffrgen.sharing.options import ReindexOptions
from diffrgen.sharing.upload import shared_files
from diffrgen.staging import staged


def reindex(options: ReindexOptions) -> int:
    """Write the new run folder and return how many studies its index holds.

    Raises DataError for an output that exists, a folder or name that is no run, and data that cannot be read.
    """
    if options.output.exists():
        raise DataError(f"{options.output}: needed a new folder, got one that exists; choose another --output")
    run = RunFolder.open(options.run)
    settings = run.settings()
    splits = read_annotation(
        options.data, images=options.images, skip_broken=options.skip_broken, check_files=False
    )
    with staged(options.output) as stage:
        for file in shared_files(run.path, reports=False):
            (stage / file.name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.path / file.name, stage / file.name)
        copy = RunFolder(stage)
        build_index(
            copy.index_path,
            load_retriever(copy.retriever_path),
            splits.train,
            rules=settings.rules,
            options=settings.retriever,
        )
        images = None if options.images is None else options.images.resolve()
        data = DataOptions(str(options.data.resolve()), images, options.skip_broken)
        save_json(replace(settings, data=data), copy.settings_path)
    return len(splits.train)
