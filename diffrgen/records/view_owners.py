"""Whose images a study lists: an image of another patient must not become one of its views."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from diffrgen.records.entry import Entry

# MIMIC-CXR's folder of a patient, p10/p10000032/s50414267/...
PATIENT_FOLDER = re.compile(r"(?:^|/)p([0-9]{8})(?:/|$)")


@dataclass
class ViewOwners:
    """The patient of each image listed so far, if ids identify the patient, and whether it is one of several views."""

    listed: dict[str, tuple[str, bool]] = field(default_factory=dict)

    def fault(self, entry: Entry) -> str | None:
        """Return the image of `entry` that belongs to another patient; None if there is none or patients are unknown.

        The patient is named by `patient_id` of the records that list an image, and by MIMIC-CXR's folders. Studies of one
        image each may share it.
        """
        folders = {found[1] for path in entry.image_paths if (found := PATIENT_FOLDER.search(path))}
        if len(folders) > 1:
            return f"expected images of one patient, got those of the patients' folders {', '.join(sorted(folders))}"
        if entry.patient_id is None:
            return None
        several = len(entry.image_paths) > 1
        for path in entry.image_paths:
            owner, among_several = self.listed.setdefault(path, (entry.patient_id, several))
            if owner != entry.patient_id and (several or among_several):
                return f"expected images of patient {entry.patient_id!r}, but {path!r} is also listed for {owner!r}"
        return None
