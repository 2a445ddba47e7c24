"""Detects regions of a radiograph that look like burned-in text, so that a person checks them before the image is shared.

A letter's stroke is narrow, has sharp edges, and is brighter (or darker) than its surroundings. Such strokes are found by a
top-hat transform, grouped into connected components, and kept if they have the size, filling and edges of a letter;
three or more of one height in a row count as text. A single L or R does not. An empty result does not mean that there is no text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

# Longest side in pixels that images are resized to, and the maximum enlargement of small ones.
SIDE, MOST_ENLARGED = 1024, 2.0
# Maximum stroke width in pixels of each pass.
STROKES = (5, 11, 23)
# Minimum difference between a stroke and its surroundings, in grey levels of 255.
CONTRAST = 40.0
# Heights of letters by pixels, per pass, as multiples of its widest stroke.
LEAST_HEIGHT, LOWEST, HIGHEST = 6, 0.8, 8.0
WIDEST = 1.6
FILLED = (0.15, 0.9)
# Minimum change across an edge within two pixels, as a share of the component's difference from its surroundings.
SHARP = 0.6
# Letters of a line: maximum differences of height, top and gap, as shares of the height.
SAME_HEIGHT, SAME_LINE, GAP = 1.35, 0.35, 1.3
LEAST_LETTERS = 3


@dataclass(frozen=True)
class TextRegion:
    """A line of what looks like text: its box as parts of the image's width and height, and how many letters it has."""

    left: float
    top: float
    right: float
    bottom: float
    letters: int

    @property
    def place(self) -> str:
        """The position as text.

        >>> TextRegion(0.8, 0.9, 1.0, 1.0, 5).place
        'lower right'
        """
        down = ("upper", "middle", "lower")[min(2, int(3 * (self.top + self.bottom) / 2))]
        across = ("left", "centre", "right")[min(2, int(3 * (self.left + self.right) / 2))]
        return "centre" if (down, across) == ("middle", "centre") else f"{down} {across}"


@dataclass(frozen=True)
class _Letter:
    left: int
    top: int
    right: int
    bottom: int

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def width(self) -> int:
        return self.right - self.left


def find_text(image: Image.Image) -> tuple[TextRegion, ...]:
    """Return the regions of the grey image (mode "L") that look like lines of text, upright or turned by a quarter.

    It misses text: of fewer than three letters, of letters that touch each other, of less than 6 pixels once the longer side
    has 1,024, slanted, or as faint as the anatomy. What it finds may be a ruler, a wire or an electrode.
    """
    scale = SIDE / max(image.size)
    width, height = (max(1, round(min(scale, MOST_ENLARGED) * side)) for side in image.size)
    pixels = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0), dtype=np.float32)
    found: list[TextRegion] = []
    for stroke in STROKES:
        for values in (pixels, 255.0 - pixels):
            letters = _letters(values, stroke)
            found += [_region(line, pixels.shape) for line in _lines(letters)]
            turned = [_Letter(each.top, each.left, each.bottom, each.right) for each in letters]
            found += [_turned(_region(line, pixels.T.shape)) for line in _lines(turned)]
    return _largest(found)


def text_warning(regions: Sequence[TextRegion]) -> str | None:
    """Return a warning that names the positions of possible text; None if nothing was found, which is no guarantee."""
    if not regions:
        return None
    places = ", ".join(dict.fromkeys(region.place for region in regions))
    return (
        f"Text may be burned into the image ({places}): check it before sharing the image or its page. "
        "This check can miss text and can flag other structures."
    )


def _letters(values: np.ndarray, stroke: int) -> list[_Letter]:
    """The components of strokes of at most `stroke` pixels that have the shape of a letter."""
    standing_out = ndimage.white_tophat(values, size=stroke + 2)
    labels, count = ndimage.label(standing_out > CONTRAST, structure=np.ones((3, 3)))
    letters = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels, count), 1):
        letter = _Letter(columns.start, rows.start, columns.stop, rows.stop)
        if not _has_size(letter, stroke):
            continue
        filled = (labels[rows, columns] == number).mean()
        if FILLED[0] <= filled <= FILLED[1] and _is_sharp(values, labels, number, letter):
            letters.append(letter)
    return letters


def _has_size(letter: _Letter, stroke: int) -> bool:
    """Whether a box may hold a letter, upright or turned."""
    longer, shorter = max(letter.height, letter.width), min(letter.height, letter.width)
    return max(LEAST_HEIGHT, LOWEST * stroke) <= longer <= HIGHEST * stroke and longer <= 10 * shorter


def _is_sharp(values: np.ndarray, labels: np.ndarray, number: int, letter: _Letter) -> bool:
    """Whether the surroundings of a component are darker directly at its edge."""
    rows = slice(max(0, letter.top - 3), letter.bottom + 3)
    columns = slice(max(0, letter.left - 3), letter.right + 3)
    near, within = values[rows, columns], labels[rows, columns] == number
    outside = ndimage.binary_dilation(within, iterations=2) & ~ndimage.binary_dilation(within)
    edge = within & ~ndimage.binary_erosion(within)
    if not outside.any():
        return False
    level = np.percentile(near[within], 90)
    return level - np.median(near[outside]) >= CONTRAST and near[edge].mean() - near[outside].mean() >= SHARP * CONTRAST


def _lines(letters: Sequence[_Letter]) -> Iterator[list[_Letter]]:
    """Chains of letters from left to right."""
    waiting = sorted((each for each in letters if each.width <= WIDEST * each.height), key=lambda each: each.left)
    while waiting:
        line, rest = [waiting[0]], []
        for letter in waiting[1:]:
            if _follows(line[-1], letter):
                line.append(letter)
            else:
                rest.append(letter)
        waiting = rest
        if len(line) >= LEAST_LETTERS:
            yield line


def _follows(last: _Letter, letter: _Letter) -> bool:
    height = max(last.height, letter.height)
    return (
        height <= SAME_HEIGHT * min(last.height, letter.height)
        and abs(last.bottom - letter.bottom) <= SAME_LINE * height
        and -0.2 * height <= letter.left - last.right <= GAP * height
    )


def _region(line: Sequence[_Letter], shape: tuple[int, ...]) -> TextRegion:
    height, width = shape
    return TextRegion(
        min(each.left for each in line) / width,
        min(each.top for each in line) / height,
        max(each.right for each in line) / width,
        max(each.bottom for each in line) / height,
        len(line),
    )


def _turned(region: TextRegion) -> TextRegion:
    return TextRegion(region.top, region.left, region.bottom, region.right, region.letters)


def _largest(found: Sequence[TextRegion]) -> tuple[TextRegion, ...]:
    """Of regions that overlap, as those of several passes do, the one of most letters."""
    kept: list[TextRegion] = []
    for region in sorted(found, key=lambda each: -each.letters):
        if not any(_overlap(region, other) for other in kept):
            kept.append(region)
    return tuple(sorted(kept, key=lambda each: (each.top, each.left)))


def _overlap(a: TextRegion, b: TextRegion) -> bool:
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom
