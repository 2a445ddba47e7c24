"""Takes the picture of the web page that the README shows: `python tests/support/screenshot.py RUN` (needs Chromium).

Serves RUN, chooses an example, waits for its report and writes docs/serve.png; `--phone` takes a phone's width, `--result`
leaves out what stands above the report.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from browser import CHROMIUM, DRIVER, open_browser, resize
from page_server import serving
from PIL import Image

from diffrgen.command import run_command
from diffrgen.errors import DataError

DOCS = Path(__file__).resolve().parents[2] / "docs"
DESK, PHONE = 1280, 390
WAIT = 60


@dataclass(frozen=True)
class Options:
    """Take a picture of the web page with a report on it."""

    run: tyro.conf.Positional[Path]
    """Run folder that diffrgen.train wrote."""
    output: Path = DOCS / "serve.png"
    """PNG to write."""
    example: int = 2
    """Which example of the gallery, from 1."""
    height: int = 1500
    """Pixels of the page from its top."""
    result: bool = False
    """From the head of the result instead."""
    phone: bool = False
    """As wide as a phone."""


def picture(browser, url: str, options: Options, width: int) -> Image.Image:
    """Have the report of an example written, and return the part of the page that `options` ask for."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, WAIT)
    browser.get(url)
    example = f"[data-example='{options.example - 1}']"
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, example))[0].click()
    browser.find_element(By.CSS_SELECTOR, "button[type=submit]").click()
    wait.until(lambda b: b.find_elements(By.CSS_SELECTOR, "[data-answer]"))
    browser.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    resize(browser, width, options.height)
    if options.result:
        browser.execute_script("document.querySelector('#answer').scrollIntoView()")
    return Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")


def main() -> int:
    """Take the picture; return the exit status."""
    options = tyro.cli(Options)
    if not (CHROMIUM and DRIVER):
        raise DataError("needed chromium and chromedriver on the PATH; apt-get install chromium chromium-driver")
    width = PHONE if options.phone else DESK
    folder = Path(tempfile.mkdtemp())
    with serving(options.run, folder / "server") as server, open_browser(folder / "browser", width=width) as browser:
        shot = picture(browser, server.url, options, width)
    shutil.rmtree(folder)
    shot.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(options.output, optimize=True)
    print(f"{options.output}: {shot.width} x {shot.height} pixels, {options.output.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
