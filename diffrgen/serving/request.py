"""A visitor's request for a report, as the page sends it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffrgen.errors import DataError
from diffrgen.records import Sections

Token = Annotated[str, Field(max_length=64)]


class SentImage(BaseModel):
    """An image that was uploaded before, by its token."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    token: Token


class ReportRequest(BaseModel):
    """An uploaded image or an example of the gallery, and the patient's prior study if the visitor has one.

    second_image: another view of the study of an uploaded image, such as its lateral radiograph.
    example_prior: use the prior image of the example. indication, history: what is known before the images are
    read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: SentImage | None = None
    second_image: SentImage | None = None
    example: int | None = Field(default=None, ge=0)
    example_prior: bool = False
    prior_image: SentImage | None = None
    prior_report: str = ""
    indication: str = ""
    history: str = ""

    @classmethod
    def of(cls, content: object) -> ReportRequest:
        """Validate the browser's message; DataError if it is not a request."""
        try:
            request = cls.model_validate(content)
        except ValidationError:
            raise DataError("The page sent something that is not a request; please reload it.") from None
        if (request.image is None) == (request.example is None):
            raise DataError("Please choose an X-ray image or one of the examples first.")
        if request.second_image is not None and request.image is None:
            raise DataError("A second view requires a first image; please choose one or remove the second view.")
        return request

    @property
    def context(self) -> Sections:
        """The sections known before the images are read."""
        return Sections(indication=self.indication.strip(), history=self.history.strip())
