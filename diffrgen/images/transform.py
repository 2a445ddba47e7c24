"""The way from a grey image to the network's input: resize, crop, rotate, normalise (PromptMRG's recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from diffrgen.images.resized import resized, resized_size


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTransform:
    """x -> (crop(resize(x)) / 255 - mean) / std, with a random crop and rotation in training.

    size: side of the square crop in pixels. resize: length of the shorter side before the crop, >= size.
    rotation: greatest angle in degrees; the crop is turned about its centre by an angle uniform in
    [-rotation, rotation], corners black. channels: the grey plane is repeated this often. mean, std: of
    pixels in 0..1, one number or one per channel. Resizing is bilinear with antialiasing, rotating bilinear.
    """

    size: int = 224
    resize: int = 256
    rotation: float = 0.0
    channels: int = 1
    mean: float | tuple[float, ...] = 0.5
    std: float | tuple[float, ...] = 0.25
    train: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize:
            raise ValueError(f"expected 1 <= size <= resize, got size={self.size}, resize={self.resize}")
        if self.channels < 1:
            raise ValueError(f"expected channels >= 1, got {self.channels}")
        if not 0.0 <= self.rotation <= 180.0:
            raise ValueError(f"expected rotation in 0..180 degrees, got {self.rotation}")
        for name, value in (("mean", self.mean), ("std", self.std)):
            if not isinstance(value, (int, float)) and len(value) != self.channels:
                raise ValueError(f"expected one {name} or one for each of {self.channels} channels, got {value}")
        if min(self._channel_values(self.std)) <= 0.0:
            raise ValueError(f"expected std > 0, got {self.std}")

    def __call__(self, image: Image.Image, generator: torch.Generator | None = None) -> torch.Tensor:
        """Return `image` (mode "L") as float32 (channels, size, size).

        In training the crop and the angle are drawn from `generator` (None: torch's default one): the same
        generator state gives the same tensor. In evaluation nothing is drawn and the crop is central. An image that
        `diffrgen.images.resized` made for the same `resize` gives the tensor that the whole image gives.
        """
        if image.mode != "L":
            raise ValueError(f"expected an image of mode 'L', as read_grey returns, got mode {image.mode!r}")
        crop = self._crop(image, generator)
        if self.train and self.rotation > 0.0:
            angle = (2.0 * float(torch.rand((), generator=generator)) - 1.0) * self.rotation
            crop = crop.rotate(angle, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(crop, dtype=np.float32))  # (S, S)
        mean, std = (torch.tensor(self._channel_values(value)) for value in (self.mean, self.std))
        return (pixels / 255.0 - mean[:, None, None]) / std[:, None, None]  # (channels, S, S)

    def _channel_values(self, value: float | tuple[float, ...]) -> tuple[float, ...]:
        return (float(value),) * self.channels if isinstance(value, (int, float)) else tuple(value)

    def _crop(self, image: Image.Image, generator: torch.Generator | None) -> Image.Image:
        """Resize and crop; of a strip, which is not resized as a whole, the crop alone is made."""
        image = resized(image, self.resize)
        width, height = resized_size(image.size, self.resize)
        room = (width - self.size, height - self.size)
        if self.train:
            left, top = (int(torch.randint(rest + 1, (), generator=generator)) for rest in room)
        else:
            left, top = (round(rest / 2) for rest in room)
        if image.size == (width, height):
            return image.crop((left, top, left + self.size, top + self.size))
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + self.size) * across, (top + self.size) * down)
        # Rounding may put the far edge slightly outside the image, which Pillow rejects.
        box = (box[0], box[1], min(box[2], image.width), min(box[3], image.height))
        return image.resize((self.size, self.size), Image.Resampling.BILINEAR, box=box)
