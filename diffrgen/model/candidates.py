"""Several reports of one study, of which one is chosen: what chooses, and what it is given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from diffrgen.model.outputs import EncodedStudy
    from diffrgen.model.writing import ReportWriting


class Prompt(NamedTuple):
    """What the decoder is prompted by: states (B, C) int64, and prior_states (B, C), None where no study has an earlier one."""

    states: Tensor
    prior_states: Tensor | None = None


class Candidates(Protocol):
    """Drafts further reports of studies and chooses one a study."""

    def __call__(
        self, model: ReportWriting, encoded: EncodedStudy, prompt: Prompt, first: Tensor, **generation: Any
    ) -> Tensor:
        """Return the chosen reports (B, T') as padded token ids; first (B, T): those of ordinary decoding.

        generation: the arguments of `ReportWriting.decode` that these were decoded with.
        """
        ...
