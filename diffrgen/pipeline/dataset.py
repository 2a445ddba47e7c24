"""Studies as the network's input: images, neighbours, disease states and report tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import PreTrainedTokenizerFast

from diffrgen.fitting.epoch import SharedEpoch, seeded_generator
from diffrgen.images import ImageTransform, ReadImage, read_resized
from diffrgen.labels import FINDINGS, NO_STUDY, Severity, SeverityReader, State
from diffrgen.model.language import IGNORED
from diffrgen.pipeline.contexts import Contexts, hide_sections
from diffrgen.pipeline.hiding import hide_rows, shown_views
from diffrgen.pipeline.views import kind_numbers, padded_views
from diffrgen.records import Study, ViewKind, main_view
from diffrgen.retrieval import Neighbours, Priors, RetrievalIndex
from diffrgen.retrieval.pairs import query_images
from diffrgen.text import ReportSections, Rules, clean_report, section_ids
from diffrgen.workers import worker_options

Example = dict[str, Tensor]
# Separates the random draws for a study's prior from those for its image.
PRIOR_DRAW = 1
# Likewise those for its context.
CONTEXT_DRAW = 2
# Likewise those for which of its views are shown.
VIEW_DRAW = 3


@dataclass(frozen=True)
class ExampleSettings:
    """The settings of examples: image transform, tokenizer, cleaning rules, report index, image reader.

    findings: the network's number of findings, 14 or 18. severities: whether it takes their severities. sections: whether it
    generates findings and impression. single_view: the probability that a training example of several views shows only one
    of them.
    """

    transform: ImageTransform
    tokenizer: PreTrainedTokenizerFast
    rules: Rules
    max_tokens: int
    index: RetrievalIndex
    token_features: bool = False
    read: ReadImage = read_resized
    findings: int = len(FINDINGS)
    severities: bool = False
    sections: bool = False
    single_view: float = 0.0


class StudyDataset(Dataset[Example]):
    """Examples of the studies of one split.

    An example holds the V views of a study, pixel_values (V, C, S, S) and view_kinds (V,) int64; retrieved (N, E) and
    retrieved_mask (N,) bool; with `priors`, prior (R, E), prior_mask (R,) bool and prior_states (C,) int64 of the
    patient's prior study; with `contexts`, context (F, E) and context_mask (F,) bool; states (C,) int64; with
    `settings.severities`, severities (C,) int64 that the report states; labels (T,) int64, report tokens and the end token.
    `neighbours`, `priors` and `contexts` have one row a study. Augmentation, of the images,
    the prior and the context, is drawn from (seed, epoch, study), so that an example does not depend on the number
    of workers or on where training was resumed.

    image_rows, context_rows: the row of the study whose images (with its neighbours and prior) and whose context each study
    gets; its own unless they are shuffled.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        neighbours: Neighbours,
        settings: ExampleSettings,
        *,
        priors: Priors | None = None,
        contexts: Contexts | None = None,
        seed: int = 0,
    ) -> None:
        if len(neighbours.rows) != len(studies) or (priors is not None and len(priors) != len(studies)):
            found = f"{len(neighbours.rows)}" + ("" if priors is None else f" and {len(priors)}")
            raise ValueError(f"expected neighbours and priors of {len(studies)} studies, got those of {found}")
        self.studies, self.neighbours, self.settings, self.seed = tuple(studies), neighbours, settings, seed
        if contexts is not None and len(contexts) != len(studies):
            raise ValueError(f"expected contexts of {len(studies)} studies, got those of {len(contexts)}")
        self.priors, self.contexts = priors, contexts
        self._epoch = SharedEpoch()
        self.image_rows = list(range(len(studies)))
        self.context_rows = list(range(len(studies)))
        self._one_view = False
        self.sections = [_sections(study).cleaned(settings.rules) for study in studies] if settings.sections else None
        self.reports = (
            [clean_report(study.report, rules=settings.rules) for study in studies]
            if self.sections is None
            else [sections.text for sections in self.sections]
        )
        self.states = torch.tensor([study.labels for study in studies], dtype=torch.int64)  # (n, C)
        self.severities = _severities(self.reports, self.states) if settings.severities else None
        tokenizer = settings.tokenizer
        ids = (
            [tokenizer(report, add_special_tokens=False).input_ids for report in self.reports]
            if self.sections is None
            else [section_ids(tokenizer, sections) for sections in self.sections]
        )
        end = tokenizer.sep_token_id
        self.labels = [torch.tensor([*tokens[: settings.max_tokens - 1], end]) for tokens in ids]

    @property
    def epoch(self) -> int:
        """The epoch that augmentation is drawn for, in this process and in the loader's workers."""
        return self._epoch.number

    @epoch.setter
    def epoch(self, number: int) -> None:
        self._epoch.number = number

    def shuffle_images(self, seed: int) -> None:
        """Give each study the images, neighbours and prior of another: an image-free model passes this control."""
        self.image_rows = shuffled_rows(len(self.studies), seed)

    def shuffle_contexts(self, seed: int) -> None:
        """Give each study the context of another: what a model gains by its context, it loses by this control."""
        self.context_rows = shuffled_rows(len(self.studies), seed)

    @contextmanager
    def one_view(self) -> Iterator[None]:
        """Show one view of each study within the block: its first frontal one, where a view is known to be that."""
        self._one_view = True
        try:
            yield
        finally:
            self._one_view = False

    def __len__(self) -> int:
        return len(self.studies)

    def __getitem__(self, row: int) -> Example:
        """Return the example of study `row`; DataError names an image that cannot be read."""
        shown = self.image_rows[row]
        transform, index, neighbours = self.settings.transform, self.settings.index, self.neighbours
        study, generator = self.studies[shown], self._generator(row)
        images, kinds = query_images(study), kind_numbers(study.views)
        places = self._shown_views(row, study.views)
        views = [transform(self.settings.read(images[place], transform.resize), generator) for place in places]
        retrieved, mask = neighbour_features(index, neighbours, shown, token_features=self.settings.token_features)
        return {
            "pixel_values": torch.stack(views),
            "view_kinds": kinds[list(places)],
            "retrieved": retrieved,
            "retrieved_mask": mask,
            **self._prior(row, shown),
            **self._context(row),
            "states": self.states[row],
            **({} if self.severities is None else {"severities": self.severities[row]}),
            "labels": self.labels[row],
        }

    def _generator(self, row: int, *part: int) -> torch.Generator:
        """Return the generator of the random draws for study `row` in this epoch, of the images or of another `part`."""
        return seeded_generator(self.seed, self.epoch, row, *part)

    def _shown_views(self, row: int, kinds: tuple[ViewKind, ...]) -> tuple[int, ...]:
        """Return the places of the views in the example of study `row`: in training sometimes one, by a draw of its own."""
        if self._one_view:
            return (main_view(kinds),)
        if not self.settings.transform.train:
            return tuple(range(len(kinds)))
        return shown_views(len(kinds), self.settings.single_view, self._generator(row, VIEW_DRAW))

    def _prior(self, row: int, shown: int) -> Example:
        """Return the rows of the study before `shown`, some hidden in training, by a draw of their own for `row`.

        Its states are never hidden: without a report, the network reads them in the image.
        """
        if self.priors is None:
            return {}
        features, mask = map(torch.from_numpy, self.priors.gather(shown))
        if self.settings.transform.train:
            mask = hide_rows(mask, self._generator(row, PRIOR_DRAW))
        before = self.priors.before(shown)
        states = prior_states(None if before is None else before.labels, self.settings.findings)
        return {"prior": features, "prior_mask": mask, "prior_states": states}

    def _context(self, row: int) -> Example:
        """Return the sections of study `row`, some hidden in training, by a draw of their own."""
        if self.contexts is None:
            return {}
        features, mask = self.contexts.gather(self.context_rows[row])
        if self.settings.transform.train:
            mask = hide_sections(mask, self._generator(row, CONTEXT_DRAW))
        return {"context": features, "context_mask": mask}


def _severities(reports: Sequence[str], states: Tensor) -> Tensor:
    """Return the severities (n, C) int64 that reports state of positive findings; unstated for other findings."""
    stated = torch.from_numpy(SeverityReader()(reports))
    severities = F.pad(stated, (0, states.shape[1] - stated.shape[1]), value=int(Severity.UNSTATED))
    return severities.masked_fill(states != State.POSITIVE, int(Severity.UNSTATED))


def _sections(study: Study) -> ReportSections:
    return ReportSections(study.sections.findings, study.sections.impression)


def shuffled_rows(count: int, seed: int) -> list[int]:
    """Return the row of another study for each of `count` studies, at random; a single study keeps its own."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    others = list(range(count))
    # A cycle through a random order moves every study.
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        others[here] = there
    return others


def prior_states(labels: Sequence[int] | None, findings: int) -> Tensor:
    """Return the states (findings,) int64 of a prior study from its labels; without a prior study, NO_STUDY.

    Data may bring labels of 14 findings or of 18: one that they do not hold is not mentioned, one too many is left out.
    """
    if labels is None:
        return torch.full((findings,), NO_STUDY)
    return torch.tensor([*labels, *[State.BLANK] * findings][:findings], dtype=torch.int64)


def neighbour_features(
    index: RetrievalIndex, neighbours: Neighbours, row: int, *, token_features: bool
) -> tuple[Tensor, Tensor]:
    """Return the features (N, E) of the neighbours in `row` and which exist (N,) bool; with `token_features`, N T rows."""
    rows, valid = neighbours.rows[row], torch.from_numpy(neighbours.valid[row])
    if not token_features:
        return torch.from_numpy(index.gather(rows)), valid
    block = index.gather_tokens(rows)
    return torch.from_numpy(block.features).float().flatten(0, 1), torch.from_numpy(block.mask).flatten()


def collate(examples: Sequence[Example]) -> Example:
    """Stack examples into a batch; labels are padded by -100 to the longest report, views to the most of a study.

    view_mask (B, V) bool, False for padding, is there where studies have different numbers of views.
    """
    padded = ("labels", "pixel_values", "view_kinds")
    batch = {name: torch.stack([e[name] for e in examples]) for name in examples[0] if name not in padded}
    tokens, pixels, kinds = ([example[name] for example in examples] for name in padded)
    labels = pad_sequence(tokens, batch_first=True, padding_value=IGNORED)
    return {**padded_views(pixels, kinds), **batch, "labels": labels}


def example_loader(
    dataset: Dataset[Example],
    *,
    batch_size: int,
    workers: int = 0,
    sampler: Sampler[int] | None = None,
    drop_last: bool = False,
    passes: bool = False,
) -> DataLoader[Example]:
    """Return a loader of batches, in order or in the sampler's; its workers read ahead, two batches each.

    passes: the loader is used more than once, so its workers are kept. On a machine with a GPU, batches come in pinned
    memory.

    Its generator is its own: by default a loader draws from the global one each time it is started, and a resumed run
    would then see other dropout and Gumbel noise than an unbroken one.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=collate,
        generator=torch.Generator(),
        persistent_workers=passes and workers > 0,
        pin_memory=torch.cuda.is_available(),
        **worker_options(workers),
    )
