"""Text burned into an image: found where it is drawn, at several sizes and places, and not in radiographs without any."""

from __future__ import annotations

import doctest
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from diffrgen.images import burned_text
from diffrgen.images.burned_text import TextRegion, find_text, text_warning
from diffrgen.phantom import PhantomOptions
from diffrgen.phantom.examples import draw_examples

WORDS = "DOE JANE 1950"
COUNT = 12


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory) -> list[Image.Image]:
    """Phantom images, which have no text."""
    folder = tmp_path_factory.mktemp("phantom")
    records = [study[-1] for study in draw_examples(folder, PhantomOptions(), COUNT)]
    return [Image.open(Path(folder, record["image_path"][0])).convert("L") for record in records]


def with_text(image: Image.Image, side: int, height: int, place: tuple[float, float], *, fill: int = 255) -> Image.Image:
    """The image `side` pixels wide with WORDS, `height` pixels high, whose centre is at `place` of its width and height."""
    drawn = image.resize((side, side), Image.Resampling.BICUBIC)
    font = ImageFont.load_default(height)
    at = tuple(part * side for part in place)
    ImageDraw.Draw(drawn).text(at, WORDS, fill=fill, font=font, anchor="mm")
    return drawn


def covers(region: TextRegion, place: tuple[float, float]) -> bool:
    return region.left <= place[0] <= region.right and region.top <= place[1] <= region.bottom


@pytest.mark.parametrize("side", [512, 1024, 2500])
@pytest.mark.parametrize(("place", "words"), [((0.25, 0.06), "upper left"), ((0.75, 0.94), "lower right")])
@pytest.mark.parametrize("part", [0.02, 0.04])
def test_drawn_text_is_found_where_it_is(radiographs, side, place, words, part):
    image = with_text(radiographs[side % COUNT], side, round(part * side), place)
    regions = find_text(image)
    assert any(covers(region, place) or region.place == words for region in regions)
    assert sum(region.letters for region in regions) >= 5
    assert words in text_warning(regions)


def test_text_on_its_side_and_dark_text_are_found(radiographs):
    turned = with_text(radiographs[0], 1024, 40, (0.5, 0.06)).transpose(Image.Transpose.ROTATE_90)
    assert any(region.letters >= 5 and region.place.endswith("left") for region in find_text(turned))
    light = Image.fromarray(np.full((800, 800), 230, np.uint8))
    assert sum(region.letters for region in find_text(with_text(light, 800, 30, (0.5, 0.5), fill=20))) >= 5


def test_radiographs_without_text_give_no_alarm(radiographs):
    assert [find_text(image) for image in radiographs] == [()] * COUNT
    assert text_warning(()) is None


@pytest.mark.parametrize("size", [(1, 1), (2, 900), (4000, 1)])
def test_odd_images_have_no_text(size):
    assert find_text(Image.new("L", size, 128)) == ()


def test_a_single_side_marker_is_no_text(radiographs):
    image = radiographs[1].resize((1024, 1024))
    ImageDraw.Draw(image).text((900, 80), "R", fill=255, font=ImageFont.load_default(48))
    assert find_text(image) == ()


def test_a_warning_names_the_places_and_claims_no_safety():
    regions = (TextRegion(0.0, 0.0, 0.2, 0.1, 4), TextRegion(0.8, 0.9, 1.0, 1.0, 5))
    told = text_warning(regions)
    assert "upper left, lower right" in told
    assert "can miss text" in told
    assert doctest.testmod(burned_text).failed == 0


def test_generate_names_the_image_whose_page_is_not_to_be_passed_on_unseen(radiographs, tmp_path):
    from types import SimpleNamespace

    from diffrgen.generate import _warn_of_text
    from diffrgen.reporting.study_images import StudyImages

    paths = [tmp_path / "clear.png", tmp_path / "named.png"]
    radiographs[0].save(paths[0])
    with_text(radiographs[0], 1024, 40, (0.25, 0.06)).save(paths[1])
    lines: list[str] = []
    for path in paths:
        _warn_of_text(StudyImages.of(path), SimpleNamespace(write=lambda line, file: lines.append(line)))
    (line,) = lines
    assert line.startswith(f"warning: {paths[1]}: Text may be burned into the image (upper left)")
