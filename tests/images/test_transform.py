"""The network's input: crops, rotation and normalisation against Pillow's and hand-computed results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from diffrgen.images import ImageTransform

PLAIN = ImageTransform(size=224, resize=256, mean=0.0, std=1.0)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8))


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("width", "height"), [(512, 512), (390, 320), (300, 411), (256, 256), (100, 120), (2000, 31)])
def test_evaluation_is_resize_then_centre_crop(width: int, height: int) -> None:
    image = noise(width, height)
    shorter = min(width, height)
    wide, high = 256 * width // shorter, 256 * height // shorter
    left, top = round((wide - 224) / 2), round((high - 224) / 2)
    resized = image.resize((wide, high), Image.Resampling.BILINEAR)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)), dtype=np.float32) / 255
    got = PLAIN(image).numpy()
    assert got.dtype == np.float32
    # A strip is not resized as a whole. Pillow rounds to grey levels between the two directions: one level, unbiased.
    np.testing.assert_allclose(got[0], expected, atol=1.01 / 255 if max(image.size) > 8 * shorter else 0)
    assert abs(np.mean(got[0] - expected)) < 0.01 / 255


@pytest.mark.parametrize("side", [512, 1024, 256])
def test_resizing_before_the_crop_gives_the_pixels_of_one_step(side: int) -> None:
    """One step samples at a box of the whole image; where the ratio of sizes is a power of two, no place is rounded."""
    image, seed = noise(side, side), 3
    left, top = (int(torch.randint(33, (), generator=draw)) * side // 256 for draw in [generator(seed)] * 2)
    box = (left, top, left + side * 224 // 256, top + side * 224 // 256)
    expected = np.asarray(image.resize((224, 224), Image.Resampling.BILINEAR, box=box), dtype=np.float32) / 255
    np.testing.assert_array_equal(replace(PLAIN, train=True)(image, generator(seed)).numpy()[0], expected)


def test_an_image_of_the_crop_size_passes_unchanged() -> None:
    image = noise(32, 32)
    tensor = ImageTransform(size=32, resize=32, mean=0.0, std=1.0)(image)
    np.testing.assert_array_equal(tensor.numpy()[0] * 255, np.asarray(image))


def test_normalisation_and_channels_by_hand() -> None:
    image = Image.fromarray(np.array([[0, 51], [102, 255]], dtype=np.uint8))
    transform = ImageTransform(size=2, resize=2, channels=3, mean=(0.2, 0.4, 0.0), std=(0.5, 0.1, 2.0))
    expected = [[[-0.4, 0.0], [0.4, 1.6]], [[-4.0, -2.0], [0.0, 6.0]], [[0.0, 0.1], [0.2, 0.5]]]
    torch.testing.assert_close(transform(image), torch.tensor(expected))
    same = ImageTransform(size=2, resize=2, channels=3, mean=0.2, std=0.5)(image)
    torch.testing.assert_close(same, torch.tensor(expected[0]).expand(3, 2, 2))


def test_training_crops_are_windows_and_reach_every_place() -> None:
    image = noise(8, 10)
    values = np.asarray(image, dtype=np.float32) / 255
    transform = ImageTransform(size=6, resize=8, mean=0.0, std=1.0, train=True)
    windows = {(x, y): values[y : y + 6, x : x + 6] for x in range(3) for y in range(5)}
    draws, seen = generator(0), set()
    for _ in range(300):
        got = transform(image, draws).numpy()[0]
        seen |= {place for place, window in windows.items() if np.array_equal(got, window)}
    assert seen == set(windows)


def test_a_sample_depends_on_the_generator_alone() -> None:
    image = noise(300, 280)
    transform = replace(PLAIN, train=True, rotation=5.0)
    first = transform(image, generator(3))
    torch.rand(7)
    torch.testing.assert_close(transform(image, generator(3)), first, rtol=0, atol=0)
    assert not torch.equal(transform(image, generator(4)), first)


def test_evaluation_draws_nothing() -> None:
    image, draws = noise(300, 280), generator(3)
    tensor = replace(PLAIN, rotation=5.0)(image, draws)
    torch.testing.assert_close(tensor, PLAIN(image), rtol=0, atol=0)
    assert torch.equal(draws.get_state(), generator(3).get_state())


def test_the_angle_is_uniform_within_the_bounds() -> None:
    # A bright half plane: the edge's slope in the crop gives the angle back.
    half = np.zeros((64, 64), dtype=np.uint8)
    half[:, 32:] = 255
    transform = ImageTransform(size=64, resize=64, mean=0.0, std=1.0, train=True, rotation=20.0)
    draws, angles = generator(0), []
    for _ in range(300):
        rotated = transform(Image.fromarray(half), draws)[0]
        dark_above, dark_below = ((rotated[row, 10:54] < 0.5).sum() for row in (22, 42))
        angles.append(float(torch.rad2deg(torch.atan2((dark_below - dark_above).float(), torch.tensor(20.0)))))
    assert max(map(abs, angles)) <= 22.0
    assert abs(np.mean(angles)) < 2.0
    assert abs(np.std(angles) - 20 / np.sqrt(3)) < 1.5


def test_the_corners_turned_in_are_black() -> None:
    white = Image.new("L", (100, 100), 255)
    transform = ImageTransform(size=100, resize=100, mean=0.0, std=1.0, train=True, rotation=90.0)
    turned = transform(white, generator(0))[0]
    assert turned[0, 0] == turned[-1, -1] == 0.0
    assert turned[50, 50] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 300}, "expected 1 <= size <= resize, got size=300, resize=256"),
        ({"size": 0}, "1 <= size"),
        ({"channels": 0}, "channels >= 1, got 0"),
        ({"rotation": -1.0}, "0..180"),
        ({"mean": (0.1, 0.2)}, "one mean or one for each of 1 channels"),
        ({"std": 0.0}, "std > 0, got 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ImageTransform(**options)


def test_another_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="expected an image of mode 'L', as read_grey returns, got mode 'RGB'"):
        PLAIN(Image.new("RGB", (300, 300)))
