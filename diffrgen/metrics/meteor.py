"""METEOR 1.5 through one Java process a call, by the jar that pycocoevalcap ships."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from diffrgen.metrics.bootstrap import Interval, bootstrap_interval

# A segment's statistics begin with the lengths of both texts and end with chunks and the matched words of both.
CHUNKS = -3


class MeteorUnavailable(RuntimeError):
    """METEOR cannot be computed here; the message says what is missing."""


class Meteor(NamedTuple):
    """The corpus METEOR (0..1) and its 95 % interval over studies, None where none was asked for or there is none."""

    score: float
    interval: Interval | None


def meteor_score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    resamples: int = 0,
    seed: int = 0,
    timeout: float | None = None,
) -> Meteor:
    """Return the corpus METEOR of `hypotheses[i]` against `references[i]`.

    The corpus score is that of the summed statistics of its segments, so a resample is scored from its sums: 1,000
    take 2 s.

    pycocoevalcap's own wrapper keeps its process until it is collected, and waits for ever when the process dies or a
    text holds a line break. Here the process ends with the call, after `timeout` seconds at the latest (default: 120
    and a fifth of a second a text, a twentieth a resample; 590 texts took under 20 s on one of two busy cores).

    Raises:
        MeteorUnavailable: there is no Java, no jar, or the process failed; the message holds its last words.
    """
    limit = 120 + 0.2 * len(hypotheses) + 0.05 * resamples if timeout is None else timeout
    with _process(_command(), timeout=limit) as (stdin, stdout):
        counts = [
            _ask(stdin, stdout, _score_line(said, truth)) for said, truth in zip(hypotheses, references, strict=True)
        ]
        score = _evaluate(stdin, stdout, counts)
        if not resamples:
            return Meteor(score, None)

        def score_sums(sums: np.ndarray) -> np.ndarray:
            lines = (" ".join(f"{value:.1f}" for value in row) for row in sums)
            return np.array([_evaluate(stdin, stdout, [line]) for line in lines])

        return Meteor(score, bootstrap_interval(_summands(counts), score_sums, resamples=resamples, seed=seed))


def _summands(counts: Sequence[str]) -> np.ndarray:
    """Return the statistics of each segment (n, K) as METEOR sums them up: a perfect match adds no chunk."""
    statistics = np.array([line.split() for line in counts], dtype=np.float64)
    lengths, matches = statistics[:, :2], statistics[:, -2:]
    perfect = (lengths == matches).all(axis=1) & (statistics[:, CHUNKS] == 1)
    statistics[perfect, CHUNKS] = 0
    return statistics


def _evaluate(stdin: IO[str], stdout: IO[str], counts: Sequence[str]) -> float:
    """EVAL answers with one score a segment, then with the score of the corpus, which is returned."""
    last = _ask(stdin, stdout, " ||| ".join(["EVAL", *counts]))
    for _ in counts:
        last = _read(stdout)
    return float(last)


def _command() -> list[str]:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java") or (shutil.which("java", path=str(Path(home) / "bin")) if home else None)
    if java is None:
        raise MeteorUnavailable("no `java` on the PATH nor in JAVA_HOME; install a Java runtime (8 or later)")
    spec = importlib.util.find_spec("pycocoevalcap.meteor.meteor")
    if spec is None or spec.origin is None:
        raise MeteorUnavailable("pycocoevalcap has no `meteor` part; reinstall pycocoevalcap")
    jar = Path(spec.origin).with_name("meteor-1.5.jar")
    if not jar.is_file():
        raise MeteorUnavailable(f"{jar} is not there; reinstall pycocoevalcap, which brings it")
    return [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]


def _score_line(hypothesis: str, reference: str) -> str:
    # "|||" and line breaks are the protocol's own marks.
    said, truth = (" ".join(text.replace("|||", " ").split()) for text in (hypothesis, reference))
    return f"SCORE ||| {truth} ||| {said}"


def _ask(stdin: IO[str], stdout: IO[str], line: str) -> str:
    stdin.write(line + "\n")
    stdin.flush()
    return _read(stdout)


def _read(stdout: IO[str]) -> str:
    answer = stdout.readline()
    if not answer:
        raise EOFError("METEOR's process closed its output")
    return answer.strip()


@contextmanager
def _process(command: list[str], *, timeout: float) -> Iterator[tuple[IO[str], IO[str]]]:
    """Start METEOR, hand out its pipes, and end it whatever happens."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise MeteorUnavailable(f"`{command[0]}` did not start: {error}") from error
        assert process.stdin is not None
        assert process.stdout is not None
        watchdog = threading.Timer(timeout, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield process.stdin, process.stdout
        except (EOFError, BrokenPipeError, ValueError) as error:
            silence = f"no answer within {timeout:g} s" if watchdog.finished.is_set() else "it left no message"
            process.kill()
            process.wait()
            errors.seek(0)
            words = " ".join(errors.read().split())[-300:] or silence
            raise MeteorUnavailable(f"METEOR's Java process failed ({error}): {words}") from error
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            process.stdout.close()
            # Closing flushes what the dead process never read.
            with suppress(BrokenPipeError):
                process.stdin.close()
