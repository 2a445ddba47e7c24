"""The study before a study: linking each study to its patient's latest earlier one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from diffrgen.records.study import Study


def link_priors(studies: Sequence[Study]) -> tuple[Study, ...]:
    """Return `studies`, in their order, each with `prior_id` = its patient's latest study of an earlier day.

    Studies without `patient_id` or `days` have no prior and are nobody's prior. Of several studies on the
    prior's day the last in `studies` is taken; studies of one day are not each other's prior.
    """
    of_patient: defaultdict[str, list[Study]] = defaultdict(list)
    for study in studies:
        if study.patient_id is not None and study.days is not None:
            of_patient[study.patient_id].append(study)
    prior_of: dict[str, str | None] = {}
    for group in of_patient.values():
        prior_of.update(_priors(group))
    return tuple(_linked(study, prior_of.get(study.id)) for study in studies)


def _linked(study: Study, prior_id: str | None) -> Study:
    return study if study.prior_id == prior_id else replace(study, prior_id=prior_id)


def _priors(group: list[Study]) -> dict[str, str | None]:
    """Return the prior's id of each study of one patient (all with `days`)."""
    prior_of: dict[str, str | None] = {}
    day, before, latest = None, None, None
    for study in sorted(group, key=lambda study: study.days or 0.0):
        if study.days != day:
            day, before = study.days, latest
        prior_of[study.id] = before
        latest = study.id
    return prior_of
