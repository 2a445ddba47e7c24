"""Feeds damaged files to the readers, in a process of its own: a decoder that crashes takes no test run with it.

`python malformed_worker.py FOLDER SEED READER=COUNT...` writes a line of JSON for each finding, then for each reader.
"""

from __future__ import annotations

import faulthandler
import json
import random
import re
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

from damage import damaged
from malformed_readers import READERS, Reader

from diffrgen.errors import DataError

SECONDS, HANGS_AFTER = 5.0, 60
MEGABYTES, ADDRESSES = 2048, 6 << 30
# What a message says besides the place.
REASON = 12


def megabytes(field: str) -> float:
    """VmSize or VmHWM of this process; not getrusage's ru_maxrss, which starts with the parent's."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def findings(reader: Reader, folder: Path, seed: int, count: int) -> Iterator[dict]:
    """Yield what is wrong with each case: the exception, the message, the time, the memory."""
    rng = random.Random(f"{seed} {reader.name}")
    files = reader.make(folder)
    whole = [path.read_bytes() for path in files]
    for path in files:
        reader.load(folder, path)
    loaded = 0
    for case in range(count):
        chosen = rng.randrange(len(files))
        files[chosen].write_bytes(damaged(whole[chosen], files[chosen].name, rng))
        (folder / "case").write_text(f"{reader.name} {case}")
        fault, seconds = "", time.process_time()
        forget_peak()
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        try:
            reader.load(folder, files[chosen])
            loaded += 1
        except DataError as error:
            words = str(error).replace(str(folder), "")
            if words == str(error) or len(words) < REASON:
                fault = f"a message without file or reason: {error}"
        except BaseException:
            fault = traceback.format_exc()
        faulthandler.cancel_dump_traceback_later()
        seconds, peak = time.process_time() - seconds, megabytes("VmHWM")
        if not fault and (seconds > SECONDS or peak > MEGABYTES):
            fault = f"{seconds:.1f} s, {peak:.0f} MB"
        if fault:
            yield {"reader": reader.name, "case": case, "file": files[chosen].name, "fault": fault}
        files[chosen].write_bytes(whole[chosen])
    yield {"reader": reader.name, "cases": count, "loaded": loaded}


def main(folder: str, seed: str, *readers: str) -> None:
    warnings.simplefilter("ignore")
    counts = {READERS[name]: int(count) for name, count in (reader.split("=") for reader in readers)}
    for reader in counts:
        reader.warm_up()
    # A bomb meets this limit, not the machine's.
    size = int(megabytes("VmSize")) << 20
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, size + ADDRESSES))
    for reader, count in counts.items():
        place = Path(folder) / reader.name
        place.mkdir()
        for finding in findings(reader, place, int(seed), count):
            print(json.dumps(finding), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
