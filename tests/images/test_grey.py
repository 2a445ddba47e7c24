"""Reading radiographs: pixel values of every kind of file, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffrgen.errors import DataError
from diffrgen.images import MAX_PIXELS, probe_grey, read_grey

GREY = np.arange(12 * 10, dtype=np.uint8).reshape(12, 10) * 2  # (H, W)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    try:
        read(path)
    except DataError as error:
        return str(error)
    return None


def pixels(path: Path) -> np.ndarray:
    image = read_grey(path)
    assert image.mode == "L"
    return np.asarray(image)


def test_8_bit_grey_is_unchanged(tmp_path: Path) -> None:
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", Image.fromarray(GREY))), GREY)


def test_colour_becomes_luma(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    got = pixels(saved(tmp_path / "a.png", Image.fromarray(colour)))
    assert np.abs(got - luma).max() <= 0.51


def test_grey_stored_as_colour_palette_or_with_alpha_is_the_same_grey(tmp_path: Path) -> None:
    grey = Image.fromarray(GREY)
    palette = Image.fromarray(GREY // 2, mode="P")
    palette.putpalette([value * 2 for value in range(128) for _ in range(3)])
    for name, image in (("rgb", grey.convert("RGB")), ("rgba", grey.convert("RGBA")), ("p", palette)):
        np.testing.assert_array_equal(pixels(saved(tmp_path / f"{name}.png", image)), GREY)


def test_what_is_transparent_becomes_black(tmp_path: Path) -> None:
    image = np.full((2, 2, 4), 200, dtype=np.uint8)
    image[..., 3] = [[0, 255], [255, 0]]
    np.testing.assert_array_equal(
        pixels(saved(tmp_path / "a.png", Image.fromarray(image))), np.array([[0, 200], [200, 0]])
    )


@pytest.mark.parametrize(
    ("most", "depth"),
    [
        (1, 8),
        (255, 8),
        (256, 10),
        (1023, 10),
        (1024, 12),
        (4095, 12),
        (4096, 14),
        (16383, 14),
        (16384, 16),
        (65535, 16),
    ],
)
def test_16_bit_grey_is_scaled_by_the_depth_of_its_maximum(tmp_path: Path, most: int, depth: int) -> None:
    wide = np.array([[0, most // 3, most // 2], [most - 1, most, 1]], dtype=np.uint16)
    expected = np.round(wide.astype(np.float64) * 255 / (2**depth - 1))
    np.testing.assert_array_equal(pixels(saved(tmp_path / "a.png", Image.fromarray(wide))), expected)



@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, GREY),
        (2, GREY[:, ::-1]),
        (3, GREY[::-1, ::-1]),
        (4, GREY[::-1]),
        (5, GREY.T),
        (6, np.rot90(GREY, -1)),
        (7, GREY[::-1, ::-1].T),
        (8, np.rot90(GREY)),
        (0, GREY),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, turned: np.ndarray, dtype: type) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(GREY.astype(dtype)), exif=exif)
    np.testing.assert_array_equal(pixels(path), turned)


def test_a_large_jpeg_may_be_read_smaller(tmp_path: Path) -> None:
    ramp = np.add.outer(np.arange(800), np.arange(640)) * (255 / 1438)
    path = saved(tmp_path / "a.jpg", Image.fromarray(ramp.astype(np.uint8)), quality=95)
    assert read_grey(path).size == (640, 800)
    small = read_grey(path, at_least=200)
    assert small.size == (320, 400)
    expected = np.asarray(read_grey(path).reduce(2), dtype=float)
    assert np.abs(np.asarray(small, dtype=float) - expected).max() <= 3
    assert read_grey(path, at_least=1000).size == (640, 800)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "got an empty file (0 bytes)"),
        ("text.png", b"PatientID,Finding\n", "got a file that begins with b'Pati'"),
        ("head.png", b"\x89PNG\r\n\x1a\n", "the image is damaged or cut off (its header cannot be read)"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    for read in (read_grey, probe_grey):
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.png, which does not exist"):
        read_grey(tmp_path / "absent.png")
    with pytest.raises(DataError, match="which is a folder"):
        read_grey(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_file_cut_off_anywhere_is_refused_by_both(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48), dtype=np.uint8)
    whole = saved(tmp_path / f"whole.{suffix}", Image.fromarray(noise)).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for share in (0.05, 0.3, 0.6, 0.9):
        path.write_bytes(whole[: int(len(whole) * share)])
        for read in (read_grey, probe_grey):
            with pytest.raises(DataError, match=rf"cut\.{suffix}"):
                read(path)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for suffix in ("png", "jpg"):
        path = tmp_path / f"a.{suffix}"
        whole = np.frombuffer(saved(path, Image.fromarray(GREY)).read_bytes(), dtype=np.uint8)
        for _ in range(150):
            damaged = whole.copy()
            damaged[random.integers(0, len(whole), 3)] = random.integers(0, 256, 3)
            path.write_bytes(damaged.tobytes())
            refused = {read: refusal(read, path) for read in (read_grey, probe_grey)}
            assert all(str(path) in message for message in refused.values() if message is not None)
            if refused[read_grey] is not None:
                assert refused[probe_grey] is not None, "the probe passed what cannot be read"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [9_500, 20_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    path = saved(tmp_path / "bomb.png", Image.new("1", (side, side)))
    assert path.stat().st_size < 100_000 < MAX_PIXELS < side * side
    for read in (read_grey, probe_grey):
        with pytest.raises(DataError, match=rf"bomb\.png.*over the limit of {MAX_PIXELS}"):
            read(path)


def test_a_caller_may_set_a_tighter_limit(tmp_path: Path) -> None:
    """120 pixels are one too many for 119, as PNG and as JPEG."""
    for name in ("a.png", "a.jpg"):
        path = saved(tmp_path / name, Image.fromarray(GREY))
        probe_grey(path, max_pixels=120)
        with pytest.raises(DataError, match="10 x 12 pixels are over the limit of 119"):
            probe_grey(path, max_pixels=119)


def test_real_radiographs_are_read_and_small_decodes_agree(shared: Path) -> None:
    files = sorted((shared / "nih_starter" / "images").iterdir())[:20]
    for path in files:
        image = np.asarray(read_grey(path), dtype=float)
        assert image.shape == (512, 512)
        assert 10 < image.mean() < 245
        small = np.asarray(read_grey(path, at_least=256), dtype=float)
        halved = image.reshape(256, 2, 256, 2).mean((1, 3))
        assert small.shape == (256, 256) or path.suffix == ".png"
        if small.shape == (256, 256):
            assert np.abs(small - halved).mean() < 1
