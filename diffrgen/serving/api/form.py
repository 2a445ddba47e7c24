"""A request of the API: the fields of its multipart body, taken into memory and checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException

from diffrgen.records import MAX_VIEWS, NO_SECTIONS, Sections
from diffrgen.serving.api.problem import RefusedError
from diffrgen.serving.memory_parser import MemoryParser
from diffrgen.serving.options import UploadLimits
from diffrgen.text import printable

FILES = ("images", "prior_image")
# Sections known before the images are read, for a run trained with them.
CONTEXT = ("indication", "history")
FIELDS = (*FILES, "prior_report", *CONTEXT)
# Maximum parts of a body; a study never has more.
MOST_PARTS = 64
# Bytes of a body beside its images: boundaries, headers and texts.
OVERHEAD = 1_000_000


@dataclass(frozen=True)
class StudyForm:
    """A client's form: the files of the study and of its prior study, the prior report, and the context."""

    images: tuple[bytes, ...]
    prior_image: bytes | None = None
    prior_report: str = ""
    context: Sections = NO_SECTIONS


@dataclass(frozen=True)
class TakenInputs:
    """Inputs of a run: the maximum number of images per study, whether it takes a prior study, and its context sections."""

    views: int
    prior: bool
    context: Sequence[str] = ()


def most_bytes(limits: UploadLimits, takes: TakenInputs) -> int:
    """Return the longest body of a request to a run that takes so much."""
    return (takes.views + takes.prior) * limits.max_bytes + OVERHEAD


async def read_form(
    headers: Headers, parts: AsyncGenerator[bytes, None], limits: UploadLimits, takes: TakenInputs
) -> StudyForm:
    """Return the request in a body to a run that takes so much.

    Raises RefusedError: 400 for a damaged body, 413 for a file or text over `limits`, 422 for fields that do not fit.
    """
    parser = MemoryParser(headers, parts, max_files=MOST_PARTS, max_fields=MOST_PARTS, max_part_size=OVERHEAD)
    try:
        fields = await parser.parse()
    except MultiPartException as error:
        raise RefusedError(
            400, "The body cannot be read.", expected=f"multipart/form-data of at most {MOST_PARTS} parts", got=error.message
        ) from None
    try:
        return await _form(fields, limits, takes)
    finally:
        await fields.close()


async def _form(fields: FormData, limits: UploadLimits, takes: TakenInputs) -> StudyForm:
    for name in fields:
        if name not in FIELDS:
            raise _wrong("The request has an unknown field.", f"the fields {', '.join(FIELDS)}", printable(name)[:80])
    context = Sections(**{name: _text(fields, name, limits) for name in CONTEXT})
    for name in context.to_record():
        if name not in takes.context:
            raise _wrong(
                f"This run was trained without the {name} of a study; remove the field.",
                f"a request without the field {name}",
                f"a text in the field {name}",
            )
    images, prior_images = [await _files(fields, name, limits) for name in FILES]
    prior_report = _text(fields, "prior_report", limits)
    if not 1 <= len(images) <= MAX_VIEWS:
        raise _wrong("Send the images of one study.", f"1 to {MAX_VIEWS} files in the field images", f"{len(images)} files")
    if len(images) > takes.views:
        raise _wrong(
            f"This run accepts {takes.views} image{'s' if takes.views > 1 else ''} of a study.",
            f"at most {takes.views} in the field images",
            f"{len(images)} files",
        )
    if len(prior_images) > 1:
        raise _wrong("Send one prior image.", "at most 1 file in the field prior_image", f"{len(prior_images)} files")
    if (prior_images or prior_report) and not takes.prior:
        raise _wrong(
            "This run was trained without prior studies; remove the prior study.",
            "neither prior_image nor prior_report",
            "a prior study",
        )
    return StudyForm(tuple(images), prior_images[0] if prior_images else None, prior_report, context)


async def _files(fields: FormData, name: str, limits: UploadLimits) -> list[bytes]:
    contents = []
    for value in fields.getlist(name):
        if not isinstance(value, UploadFile):
            raise _wrong(f"The field {name} is not a file.", f"a file in the field {name}", "text")
        content = await value.read()
        if len(content) > limits.max_bytes:
            raise RefusedError(
                413, "An image is too large.", expected=f"at most {limits.max_bytes} bytes", got=f"{len(content)} bytes"
            )
        contents.append(content)
    return contents


def _text(fields: FormData, name: str, limits: UploadLimits) -> str:
    texts = fields.getlist(name)
    if len(texts) > 1 or not all(isinstance(text, str) for text in texts):
        raise _wrong(f"The field {name} is not one text.", f"one text in the field {name}", "a file, or several")
    text = texts[0].strip() if texts and isinstance(texts[0], str) else ""
    most = limits.max_report_characters
    if len(text) > most:
        raise RefusedError(413, f"The text in {name} is too long.", expected=f"at most {most} characters", got=f"{len(text)}")
    return text


def _wrong(error: str, expected: str, got: str) -> RefusedError:
    return RefusedError(422, error, expected=expected, got=got)
