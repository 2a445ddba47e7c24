"""Example studies to try the page with: test studies of the run's phantom, drawn when the service starts."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffrgen.phantom import PhantomOptions
from diffrgen.phantom.examples import draw_examples

THUMBNAIL = 160


@dataclass(frozen=True)
class Example:
    """An image, the file of the prior study and its report if there is one, and the contents of its button.

    thumbnail: a data URI; preview: a larger one of the whole image; name: what the image is, for who cannot see it.
    """

    image: Path
    name: str
    thumbnail: str
    preview: str
    prior_image: Path | None = None
    prior_report: str = ""


def make_gallery(folder: Path, options: PhantomOptions, count: int) -> tuple[Example, ...]:
    """Draw `count` test studies of the phantom `options` to `folder`, a patient each, the last study of each."""
    examples = []
    for number, records in enumerate(draw_examples(folder, options, count), 1):
        last, earlier = records[-1], records[-2] if len(records) > 1 else None
        image = folder / last["image_path"][0]
        examples.append(
            Example(
                image=image,
                name=f"Phantom {number}" + (", with a prior study" if earlier else ""),
                thumbnail=_data_uri(image, THUMBNAIL),
                preview=_data_uri(image, None),
                prior_image=None if earlier is None else folder / earlier["image_path"][0],
                prior_report="" if earlier is None else earlier["report"],
            )
        )
    return tuple(examples)


def _data_uri(path: Path, side: int | None) -> str:
    with Image.open(path, formats=("PNG",)) as image:
        if side is not None:
            image.thumbnail((side, side), Image.Resampling.LANCZOS)
        stream = io.BytesIO()
        image.convert("L").save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()
