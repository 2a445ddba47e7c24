"""The options of the web page and the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from annotated_types import Ge, Le

from diffrgen.pipeline.options import GenerationOptions
from diffrgen.ranges import Count, CountOrZero, Positive, check_fields

# Hosts that a browser on this machine reaches the service by.
LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class UploadLimits:
    """Limits on uploads and on how long the service stores them."""

    max_megabytes: Count = 40
    """Maximum size of an image file, 10^6 bytes; an uncompressed radiograph of 43 x 43 cm at 0.1 mm has 37."""
    max_megapixels: Count = 30
    """Maximum size of an image, 10^6 pixels."""
    max_report_characters: Count = 5000
    """Maximum length of the report of a prior study."""
    held_megabytes: Count = 320
    """Memory for decoded images that wait for a request, 10^6 pixels; above it, the oldest image of the client with the
    most memory is dropped."""
    held_seconds: Count = 300
    """Time after which an image without a request for a report is dropped."""
    header_seconds: Positive = 10.0
    """Maximum time for the headers of a request; slower connections are closed."""
    idle_seconds: Positive = 5.0
    """Maximum pause within the body of a request."""
    body_seconds: Positive = 60.0
    """Maximum time for the body of a request, 40 MB at 5.3 Mbit/s."""
    decode_seconds: Positive = 10.0
    """Maximum processor time to decode one image; its process is then killed."""

    def __post_init__(self) -> None:
        check_fields(self, "--")

    @property
    def max_bytes(self) -> int:
        """The largest image file in bytes."""
        return self.max_megabytes * 1_000_000

    @property
    def held_bytes(self) -> int:
        """The decoded images that wait for a request, in bytes."""
        return self.held_megabytes * 1_000_000

    @property
    def max_pixels(self) -> int:
        """The largest image in pixels."""
        return self.max_megapixels * 1_000_000


@dataclass(frozen=True)
class ServeOptions:
    """Serve a trained run as a web page or as an API, on this machine only by default (--host)."""

    run: tyro.conf.Positional[Path]
    """Run folder of diffrgen.train."""
    api: bool = False
    """Serve POST /v1/reports, GET /healthz and /docs instead of the page. Requires a token in the environment variable
    DIFFRGEN_API_TOKEN; pip install "diffrgen[api]"."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 opens the service to the network, the page without a password."""
    port: Annotated[int, Ge(0), Le(65535)] = 7860
    """Port to listen on; 0 selects a free port."""
    examples: CountOrZero = 6
    """Phantom studies in the gallery."""
    waiting: Count = 32
    """Maximum number of waiting requests. Further requests are rejected, first those of the client with the most
    requests."""
    fused_kernels: bool = True
    """Use the fused operator; --no-fused-kernels uses the PyTorch reference."""
    limits: tyro.conf.OmitArgPrefixes[UploadLimits] = field(default_factory=UploadLimits)
    generation: GenerationOptions = field(default_factory=GenerationOptions)

    def __post_init__(self) -> None:
        check_fields(self, "--")
