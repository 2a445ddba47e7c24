"""METEOR 1.5 through one Java process a call, by the jar that pycocoevalcap ships."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from diffrgen.metrics.bootstrap import Interval, bootstrap_interval

# A segment's statistics begin with the lengths of both texts and end with chunks and the matched words of both.
CHUNKS = -3
TIMEOUT_VARIABLE = "DIFFRGEN_METEOR_TIMEOUT"


class MeteorUnavailable(RuntimeError):
    """METEOR cannot be computed here; the message names the missing requirement."""


class Meteor(NamedTuple):
    """The corpus METEOR (0..1) and its 95 % interval over studies, None if not requested or not defined."""

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

    pycocoevalcap's wrapper keeps its process until it is garbage-collected, and waits for ever if the process dies or a
    text contains a line break. Here the process ends with the call, or after `timeout` seconds without output: the time
    since its last answer counts, so that a large corpus may take long. Default: `patience`.

    Raises:
        MeteorUnavailable: there is no Java, no jar, DIFFRGEN_METEOR_TIMEOUT is no number above 0, or the process failed;
            the message holds its last words.
    """
    if timeout is None:
        patience(len(hypotheses))  # Once in this thread, so that a wrong setting is an error of the call.
    with _process(_command(), lambda: patience(len(hypotheses)) if timeout is None else timeout) as (stdin, stdout):
        counts = [
            _ask(stdin, stdout, _score_line(generated, truth)) for generated, truth in zip(hypotheses, references, strict=True)
        ]
        score = _evaluate(stdin, stdout, counts)
        if not resamples:
            return Meteor(score, None)

        def score_sums(sums: np.ndarray) -> np.ndarray:
            lines = (" ".join(f"{value:.1f}" for value in row) for row in sums)
            return np.array([_evaluate(stdin, stdout, [line]) for line in lines])

        return Meteor(score, bootstrap_interval(_summands(counts), score_sums, resamples=resamples, seed=seed))


def patience(texts: int) -> float:
    """Return the seconds that METEOR may be without output: those of DIFFRGEN_METEOR_TIMEOUT if it is set, else

        (120 + 0.01 texts) * max(1, load per core);  all texts are summed up at once at the end

    Raises:
        MeteorUnavailable: DIFFRGEN_METEOR_TIMEOUT is set and is no number above 0.
    """
    setting = os.environ.get(TIMEOUT_VARIABLE)
    if setting is not None:
        try:
            seconds = float(setting)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < threading.TIMEOUT_MAX:
            raise MeteorUnavailable(f"expected {TIMEOUT_VARIABLE} to be a number of seconds above 0, got {setting!r}")
        return seconds
    waiting = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 1.0
    return (120 + 0.01 * texts) * max(1.0, waiting)


class Watchdog:
    """Kills a process without an answer for `limit` seconds; `limit` is evaluated again when the time is up."""

    def __init__(self, process: subprocess.Popen[str], limit: Callable[[], float]) -> None:
        self.killed_after: float | None = None
        self._process, self._limit = process, limit
        self._heard, self._ended = time.monotonic(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def heard(self) -> None:
        """Note an answer."""
        self._heard = time.monotonic()

    def end(self) -> None:
        """Stop watching."""
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        limit = self._limit()
        while not self._ended.wait(max(0.01, self._heard + limit - time.monotonic())):
            limit = self._limit()
            if time.monotonic() - self._heard >= limit:
                self.killed_after = limit
                self._process.kill()
                return


class Answers:
    """The lines that METEOR writes; each resets the watchdog."""

    def __init__(self, stream: IO[str], watchdog: Watchdog) -> None:
        self._stream, self._watchdog = stream, watchdog

    def readline(self) -> str:
        """Return the next line, "" at the end."""
        line = self._stream.readline()
        self._watchdog.heard()
        return line


def _summands(counts: Sequence[str]) -> np.ndarray:
    """Return the statistics of each segment (n, K) as METEOR sums them up: a perfect match adds no chunk."""
    statistics = np.array([line.split() for line in counts], dtype=np.float64)
    lengths, matches = statistics[:, :2], statistics[:, -2:]
    perfect = (lengths == matches).all(axis=1) & (statistics[:, CHUNKS] == 1)
    statistics[perfect, CHUNKS] = 0
    return statistics


def _evaluate(stdin: IO[str], stdout: Answers, counts: Sequence[str]) -> float:
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
    # "|||" and line breaks separate the fields of the protocol.
    generated, truth = (" ".join(text.replace("|||", " ").split()) for text in (hypothesis, reference))
    return f"SCORE ||| {truth} ||| {generated}"


def _ask(stdin: IO[str], stdout: Answers, line: str) -> str:
    stdin.write(line + "\n")
    stdin.flush()
    return _read(stdout)


def _read(stdout: Answers) -> str:
    answer = stdout.readline()
    if not answer:
        raise EOFError("METEOR's process closed its output")
    return answer.strip()


@contextmanager
def _process(command: list[str], limit: Callable[[], float]) -> Iterator[tuple[IO[str], Answers]]:
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
        watchdog = Watchdog(process, limit)
        try:
            yield process.stdin, Answers(process.stdout, watchdog)
        except (EOFError, BrokenPipeError, ValueError) as error:
            silence = "it left no message"
            if watchdog.killed_after is not None:
                silence = f"no answer within {watchdog.killed_after:g} s; set {TIMEOUT_VARIABLE} to more seconds"
            process.kill()
            process.wait()
            errors.seek(0)
            words = " ".join(errors.read().split())[-300:] or silence
            raise MeteorUnavailable(f"METEOR's Java process failed ({error}): {words}") from error
        finally:
            watchdog.end()
            process.kill()
            process.wait()
            process.stdout.close()
            # Closing tries to flush what the dead process never read.
            with suppress(BrokenPipeError):
                process.stdin.close()
