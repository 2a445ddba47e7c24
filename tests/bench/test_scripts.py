"""The benchmark: it refuses what is wrong, counts what it says, and its scripts run to the end on a CPU."""

from __future__ import annotations

import argparse
import doctest
import functools
import json
import os
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import aggregation
import data
import encoder
import errors
import generation
import goals
import gpu
import inputs
import memory
import numpy as np
import plot
import pytest
import result
import retrieval
import table
import timing
import torch
import truth
import visit
from cases import QUICK_CASES, work
from comparison import Comparison
from contenders import CONTENDERS, Absent, build
from kernel_cases import BENCH_CASES, Case, dense
from limits import Limits
from network import SETTINGS, make_batch, make_network
from parts import parts_of, time_shares
from session import Outcome, Session
from timing import Spread, interleave
from visit import Step, Visit

from diffrgen.model import coattention
from diffrgen.retrieval import IndexedStudies, write_index

ROOT = Path(__file__).resolve().parents[2]
CASE = Case("bench", batch=3, rows=14, grid=(3, 4), orders=(0, 1, 2), heads=3, dim=8)


@pytest.mark.parametrize("whole", [True, False])
def test_truth_is_dense_eq_5(whole, monkeypatch):
    """In a large call, two heads of two studies are checked, one at a time."""
    if not whole:
        monkeypatch.setattr(truth, "WHOLE", 0)
        monkeypatch.setattr(truth, "CHUNK", 0)
    leaves = CASE.inputs(torch.float32)
    found = truth.Truth(CASE, leaves, windowed=True)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    out = dense(*wide, CASE)
    exact = [out.detach(), *torch.autograd.grad(out, wide, found.grad.double())]
    for value, true in zip(found.exact[1:], exact[1:], strict=True):
        torch.testing.assert_close(value, true, rtol=0, atol=1e-13)
    ends = [(0, 0), (2, 2)]
    checked = [(b, h) for b in range(3) for h in range(3)] if whole else ends
    for b, h in checked:
        torch.testing.assert_close(found.exact[0][b, :, h], exact[0][b, :, h], rtol=0, atol=1e-13)
        assert found.grad[b, :, h].abs().min() > 0
    assert found.grad.count_nonzero() == len(checked) * 14 * 8


def test_yardstick_has_no_windows():
    leaves = CASE.inputs(torch.float32)
    full = dense(*(x.detach().double() for x in leaves), replace(CASE, orders=(0, 0, 0)))
    torch.testing.assert_close(truth.Truth(CASE, leaves, windowed=False).exact[0], full, rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", ["eager", "native", "sdpa", "triton", "xformers"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_contender_passes(name, dtype):
    try:
        contender = build(name, CASE, "cpu", dtype)
    except Absent as reason:
        pytest.skip(str(reason))
    exact = truth.Truth(CASE, CASE.inputs(dtype), windowed=contender.windowed)
    assert set(exact.check(contender.function, contender.bound)) == {"out", "dq", "dk", "dv", "dalpha"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("fault", [1.02, float("nan")])
def test_wrong_contender_is_refused(fault, dtype):
    eager = build("eager", CASE, "cpu", dtype)
    exact = truth.Truth(CASE, CASE.inputs(dtype), windowed=True)
    with pytest.raises(ValueError, match=r"out: expected a relative error of at most .*, got"):
        exact.check(lambda *x: eager.function(*x) * fault, eager.bound)


def test_wrong_gradient_is_refused():
    eager = build("eager", CASE, "cpu", torch.float32)
    exact = truth.Truth(CASE, CASE.inputs(torch.float32), windowed=True)
    with pytest.raises(ValueError, match="dv: expected"):
        exact.check(lambda q, k, v, a: eager.function(q, k, 1.01 * v - 0.01 * v.detach(), a), eager.bound)


def test_yardstick_is_refused_as_eq_5():
    exact = truth.Truth(CASE, CASE.inputs(torch.float32), windowed=True)
    with pytest.raises(ValueError, match="out: expected"):
        exact.check(build("sdpa", CASE, "cpu", torch.float32).function, 1e-5)


def test_work_by_hand():
    """2 studies, 3 rows on 4 patches, 2 masks, 1 head of width 5: a product is 2 * 2 * 2 * 1 * 3 * 4 * 5 FLOP.

    q has 60 elements, k and v 80 each, alpha 4, out 30; all float32.
    """
    case = Case("hand", batch=2, rows=3, grid=(2, 2), orders=(0, 1), heads=1, dim=5)
    forward, both = (work(case, direction, torch.float32) for direction in ("forward", "forward_backward"))
    assert (forward.flops, forward.moved) == (2 * 480, 4 * (60 + 80 + 80 + 4 + 30))
    assert (both.flops, both.moved) == (7 * 480, 4 * (3 * (60 + 80 + 80 + 4) + 2 * 30))
    assert work(replace(case, shared=True), "forward", torch.bfloat16).moved == 2 * (30 + 40 + 40 + 30) + 4 * 4


def test_cases_are_those_of_the_goals():
    names = [case.name for cases in BENCH_CASES.values() for case in cases]
    assert len(set(names)) == len(names)
    patches = {case.grid[0] * case.grid[1]: case for case in BENCH_CASES["cuda"]}
    assert set(goals.GOALS) < set(patches)
    assert all((case.batch, case.heads, len(case.orders), case.dim) == (16, 8, 4, 64) for case in patches.values())
    assert {name for each in goals.GOALS.values() for name in each["times"]} < set(CONTENDERS)


def test_saved_bytes():
    """A product with an input keeps the other factor: one of its own, or none where that is an input too."""
    x, y = (torch.randn(100, requires_grad=True) for _ in range(2))
    assert memory.saved_bytes(lambda x, y: x * y, [x, y]) == 0
    assert memory.saved_bytes(lambda x, y: (x + 1) * (y + 1) * 2, [x, y]) == 2 * 400


def test_peak_bytes():
    megabytes = 64
    peak = memory.peak_bytes(lambda: torch.ones(megabytes * 2**18) + 1, "cpu")
    if peak is None:
        pytest.skip("this kernel does not tell peak memory")
    assert 1.9 * megabytes < peak / 2**20 < 2.5 * megabytes


def test_spread_by_hand():
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(least=1.0, median=3.0, first_quartile=2.0, third_quartile=4.0)
    assert Spread.of([2.0]) == Spread(2.0, 2.0, 2.0, 2.0)


def test_contenders_take_turns():
    order = []

    class Fake:
        how = "fake"

        def __init__(self, name):
            self.name = name

        def sample(self):
            order.append(self.name)
            return [1.0]

    rounds = interleave({name: Fake(name) for name in "abc"}, seconds=0)
    assert order == list("abcbcacab")
    assert rounds == {name: [[1.0]] * 3 for name in "abc"}


def test_processor_seconds_leave_out_waiting(monkeypatch):
    monkeypatch.setattr(timing, "CLOCK_SECONDS", 0.0)
    step = functools.partial(time.sleep, 0.3)
    assert timing.Clock(step).sample()[0] >= 0.3
    assert timing.Clock(step, "processor").sample()[0] < 0.15


def test_failing_contender_leaves_the_others_their_rows(monkeypatch):
    def broken(case, device, dtype):
        raise RuntimeError("no such kernel\nat all")

    monkeypatch.setitem(CONTENDERS, "flex", broken)
    comparison = Comparison(QUICK_CASES[0], "cpu", torch.float32)
    comparison.run(["eager", "flex", "sdpa", "xformers"], "forward", 0.0, Limits(1e9, 1e9))
    assert [row.contender for row in comparison.rows] == ["eager", "sdpa"]
    eager = comparison.rows[0]
    assert eager.speedup == Spread(1.0, 1.0, 1.0, 1.0)
    assert eager.rate.gflop_per_second == pytest.approx(eager.rate.dense_gflop / eager.seconds.median)
    assert eager.rate.percent_gemm == pytest.approx(100 * eager.rate.gflop_per_second)
    flex, xformers = comparison.missing
    assert (flex.reason, "no such kernel" in flex.trace) == ("RuntimeError: no such kernel", True)
    assert (xformers.contender, xformers.trace) == ("xformers", "")


def test_session_outlives_failures(tmp_path, monkeypatch):
    monkeypatch.setattr("session.LEAST_SECONDS", 0.1)
    session = Session(1, tmp_path / "log.txt")
    assert session.run("bad", ["-c", "print('word'); raise SystemExit(3)"], 1).status == "exit 3"
    assert session.run("slow", ["-c", "import time; time.sleep(60)"], 0.01).status == "out of time"
    good = session.run("good", ["-c", "print(7)"], 1)
    assert (good.ok, good.tail.splitlines()[-1]) == (True, "7")
    assert "word" in session.log.read_text()
    session.deadline = 0.0
    assert session.run("late", ["-c", ""], 1).status == "not started"


def test_session_stands_in_for_annotated_types_where_it_is_missing(tmp_path, monkeypatch):
    session = Session(60, tmp_path / "log.txt")
    code = "import annotated_types as a; print(a.__file__, a.Gt(3).gt, a.Ge(4).ge, a.Lt(5).lt, a.Le(6).le)"
    stand_in = str(ROOT / "bench" / "stand_in" / "annotated_types.py")
    assert stand_in not in session.run("there", ["-c", code], 60).tail
    monkeypatch.setattr("session.importlib.util.find_spec", lambda name: None)
    assert session.run("missing", ["-c", code], 60).tail.splitlines()[-1] == f"{stand_in} 3 4 5 6"


def test_goals_by_hand():
    name = "b16_h8_p4_49x49_d64"
    medians = {("native", "forward"): 9e-6, ("triton", "forward"): 12e-6, ("eager", "forward"): 40e-6}
    rows = [
        {"case": name, "direction": direction, "contender": contender, "seconds": {"median": seconds}}
        for (contender, direction), seconds in medians.items()
    ]
    verdicts = {verdict.quantity: verdict for verdict in goals.judge(rows) if verdict.case == name}
    assert (verdicts["forward, ms"].measured, verdicts["forward, ms"].met) == (pytest.approx(0.009), True)
    eager = verdicts["forward, times eager"]
    assert (eager.goal, eager.measured, eager.met) == (5.0, pytest.approx(40 / 9), False)
    assert verdicts["forward, times compiled"].measured is None
    assert not verdicts["forward_backward, ms"].met


def test_input_sets_are_one_on_a_cpu():
    (only,) = inputs.input_sets(CASE, torch.float32, "cpu")
    assert only.nbytes == 4 * (3 * 3 * 3 * 8 * (14 + 12 + 12) + 3 * 3 + 3 * 14 * 3 * 8)


@pytest.mark.parametrize("module", [table, plot, result])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_errors_above_their_bound_are_failures():
    found = errors.Found()
    good, bad = (errors.Worst(error=e, case="c", eager=1e-7, times_bound=e / 2e-6) for e in (1e-6, 3e-6))
    found.add(errors.Check("native", "cpu", "fp32", "c"), {"out": good})
    assert found.failures == []
    found.add(errors.Check("native", "cpu", "fp32", "d"), {"out": bad, "dq": errors.Worst(float("nan"), "d", 1e-7, float("nan"))})
    found.add(errors.Check("triton", "cpu", "fp32", "c"), "RuntimeError: no such kernel")
    assert found.failures == [
        "native fp32 d: out errs by 3.00e-06, 1.5 times its bound",
        "native fp32 d: dq errs by nan, nan times its bound",
        "triton fp32 c: RuntimeError: no such kernel",
    ]
    assert found.worst["native fp32"]["out"] == replace(bad, times_bound=1.5)
    assert found.has(errors.Check("triton", "cpu", "fp32", "c"))


def test_generation_refuses_other_reports(monkeypatch):
    monkeypatch.setattr(generation.Desk, "vision_encoder_decoder", lambda desk: desk.ours() + 1)
    with pytest.raises(RuntimeError, match="vision_encoder_decoder: expected the reports that ours writes"):
        generation.measure(SETTINGS["quick"], "cpu", 0.0)


class SleepyBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        time.sleep(1.0)
        return gradient


@pytest.mark.parametrize("part", ["image encoder", "operator", "decoder and LM head"])
def test_time_is_found_where_it_goes(part, monkeypatch):
    """A part that sleeps for a second in backward takes most of a tiny step."""
    network = make_network(SETTINGS["quick"], "reference")
    batch = make_batch(SETTINGS["quick"], "cpu")
    if part == "operator":
        plain = coattention.routed_coattention
        monkeypatch.setattr(coattention, "routed_coattention", lambda *a, **o: SleepyBackward.apply(plain(*a, **o)))
    elif part == "image encoder":
        network.image_encoder.register_forward_hook(
            lambda _, __, out: out._replace(patches=SleepyBackward.apply(out.patches))
        )
    else:
        embeddings = network.decoder.get_input_embeddings()
        embeddings.register_forward_hook(lambda _, __, out: SleepyBackward.apply(out))
    shares = time_shares(parts_of(network), lambda: network(**batch).loss.backward(), "cpu")
    assert sum(shares.values()) == pytest.approx(1)
    assert max(shares, key=shares.get) == part
    assert all(share > 0 for share in shares.values())


def test_aggregation_refuses_other_gradients(monkeypatch):
    plain = aggregation.Module.step
    monkeypatch.setattr(aggregation.Module, "step", lambda self: [x + (self.backend == "auto") for x in plain(self)])
    with pytest.raises(RuntimeError, match="fused: expected the reference's gradients"):
        aggregation.measure(aggregation.QUICK["quick"], "cpu", 0.0)


def test_data_script_times_every_loader(tmp_path):
    command = ["--quick", "--workers", "0", "--step-seconds", "0.01", "--output", str(tmp_path / "found.json")]
    assert data.main(command) == 0
    found = json.loads((tmp_path / "found.json").read_text())["formats"]
    for kind in ("png", "jpg"):
        rates = found[kind]["loader_images_per_second"]
        assert {name: rate["median"] > 0 for name, rate in rates.items()} == {
            "files, 0 workers": True,
            "kept, 0 workers": True,
        }
        shares = found[kind]["waiting_share_by_step_seconds"]
        assert all(0 <= share["0.01"] <= 1 for share in shares.values())


def test_retrieval_script_measures_recall(tmp_path):
    assert retrieval.main(["--quick", "--output", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert 0.9 < found["recall_of_queries"] <= 1
    assert found["milliseconds_a_query"]["alone"]["median"] > 0


def test_encoder_script_measures_inference_and_training(tmp_path):
    assert encoder.main(["--quick", "--encoders", "tiny", "--output", str(tmp_path / "found.json")]) == 0
    (found,) = json.loads((tmp_path / "found.json").read_text())["results"]
    for part in ("inference", "training"):
        assert found[part]["times as fast"]["median"] > 0
        assert found[part]["rounds"] >= 1


def test_recall_of_queries_by_hand(tmp_path):
    """Of 21 rows found, 20 are the nearest and one is the farthest."""
    crowd = retrieval.Crowd(width=16, families=5, groups=2)
    names = [str(row) for row in range(90)]
    studies = IndexedStudies.of(ids=names, patients=[None] * 90, reports=names)
    index = write_index(tmp_path, studies, crowd.draw(90))
    queries = crowd.draw(4)
    order = np.argsort(-(queries @ index.embeddings.T), axis=1)
    found = np.concatenate([order[:, :20], order[:, -1:]], axis=1)
    assert retrieval._recall(index, queries, found) == pytest.approx(20 / 21)
    assert retrieval._recall(index, queries, order[:, :21]) == 1.0


def requirements(distribution: str) -> set[str]:
    """Names of a distribution and of all that it needs, as indexes normalise them."""
    found, new = set(), [distribution]
    while new:
        name = re.sub(r"[-_.]+", "-", new.pop()).lower()
        with suppress(metadata.PackageNotFoundError):
            lines = metadata.requires(name) or [] if name not in found else []
            new += [re.match(r"[\w.-]+", line)[0] for line in lines if "extra" not in line.partition(";")[2]]
            found.add(name)
    return found


@pytest.fixture
def bare_python(tmp_path):
    """An environment in which only torch, triton, transformers and numpy, and what they need, can be imported."""
    kept = set().union(*map(requirements, ("torch", "triton", "transformers", "numpy"))) | {"setuptools"}
    modules = metadata.packages_distributions().items()
    needed = {module for module, names in modules if kept & {re.sub(r"[-_.]+", "-", name).lower() for name in names}}
    hidden = sorted({module for module, _ in modules if not module.startswith(("diffrgen", "_"))} - needed)
    assert {"accelerate", "faiss", "matplotlib", "pytest", "tyro"} <= set(hidden)
    code = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        hidden = spec and name.partition(".")[0] in {hidden} and "site-packages" in str(spec.origin)
        return None if hidden else spec

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
"""
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "sitecustomize.py").write_text(code)
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(tmp_path / "bare")}


# Runs `bench/gpu.py ARGUMENTS` for each list of arguments, its steps in processes that begin with these modules imported.
WARM_SCRIPT = """
import json, runpy, subprocess, sys
from types import SimpleNamespace
sys.path[:0] = ["bench", "tests/support"]
import session, warm_process
models = [f"transformers.models.{name}.modeling_{name}" for name in ("bert", "resnet")]
warm_process.CONTEXT.set_forkserver_preload(["torch", "transformers.generation", *models])
session.subprocess = SimpleNamespace(**{**vars(subprocess), "Popen": warm_process.WarmProcess})
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["bench/gpu.py", *arguments]
    try:
        runpy.run_path("bench/gpu.py", run_name="__main__")
    except SystemExit as end:
        print(f"part {arguments[1]} ended with {end.code}")
"""


def run_parts(parts, folder, environment):
    """Take some steps of each part; what the script wrote by part, and what it printed."""
    common = ["--device", "cpu", "--quick", "--seconds", "0.1", "--minutes", "60", "--no-build", "--output", str(folder)]
    calls = [["--part", part, *common, "--steps", *steps] for part, steps in parts.items()]
    command = [sys.executable, "-c", WARM_SCRIPT, json.dumps(calls)]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    found = {part: json.loads((folder / f"{part}.json").read_text()) for part in parts}
    for part, steps in parts.items():
        statuses = {name: step["status"] for name, step in found[part]["steps"].items()}
        assert statuses == dict.fromkeys(steps, "ok"), run.stdout
    return found, run.stdout


def test_gpu_script_runs_on_a_cpu(tmp_path, bare_python):
    """One process for each kind of measurement, without the packages that a GPU machine may lack."""
    steps = {
        "a": ["49 patches, forward_backward", "parity of native"],
        "c": ["training, paper", "generation", "aggregation"],
    }
    parts, printed = run_parts(steps, tmp_path, bare_python)
    found = parts["a"]
    assert "part a ended with 1" in printed
    assert "not done: 1024 patches, forward_backward" in printed
    assert {row["case"] for row in found["rows"] if row["contender"] == "eager"} == {case.name for case in QUICK_CASES}
    assert set(found["results"]["parity of native"]["worst"]) == {"native bf16", "native fp32", "native fp16"}
    assert found["commit"] == found["machine"]["commit"]
    results = parts["c"]["results"]
    assert results["training, paper"]["settings"]["quick"]["reference_over"]["fused"] > 0
    assert results["aggregation"]["blocks"]["quick"]["reference_over_fused"] > 0
    (generated,) = results["generation"]["results"]
    assert min(generated["reports_per_second"].values()) > 0
    assert [round(sum(parts.values()), 2) for parts in generated["shares"].values()] == [1.0] * 4


class FakeSession:
    """Writes rows of a comparison, or a file of its own, and ends as it is told to."""

    def __init__(self, **statuses):
        self.statuses, self.commands = statuses, []

    def run(self, step, command, minutes, environment):
        self.commands.append(command)
        path = Path(command[command.index("--output") + 1])
        if step == "parity":
            done = json.loads(path.read_text())["done"] if "--resume" in command else 0
            path.write_text(json.dumps({"done": done + 1}))
        else:
            row = {"case": "x", "direction": step, "contender": "native", "seconds": {"median": 0.123456}}
            path.write_text(json.dumps({"rows": [row], "missing": [], "limits": {"flops": 1.0}}))
        return Outcome(step, " ".join(command), self.statuses.get(step, "ok"), 1.0, "the end of the log")


def test_visit_goes_on_where_it_ended(tmp_path):
    """Steps never tried come before those that failed; what a killed step had written is kept, and handed back to it."""
    steps = [Step("parity", ("errors.py",), 1, resumed=True), Step("forward", ("compare.py",), 1), Step("both", ("x.py",), 1)]
    first = Visit(tmp_path / "a.json", FakeSession(parity="out of time"), "cpu", "fp32")
    for step in first.ordered(steps)[:2]:
        first.take(step)
    kept = json.loads((tmp_path / "a.json").read_text())
    assert kept["steps"]["parity"]["tail"] == "the end of the log"
    assert "tail" not in kept["steps"]["forward"]
    assert kept["rows"] == [{"case": "x", "direction": "forward", "contender": "native", "seconds": {"median": 0.1235}}]
    session = FakeSession()
    second = Visit(tmp_path / "a.json", session, "cpu", "fp32")
    assert [step.name for step in second.ordered(steps)] == ["both", "parity"]
    for step in second.ordered(steps):
        second.take(step)
    assert second.found["results"]["parity"] == {"done": 2}
    assert [row["direction"] for row in second.found["rows"]] == ["forward", "both"]
    assert second.ordered(steps) == []
    second.take(steps[1])
    assert [row["direction"] for row in second.found["rows"]] == ["both", "forward"]


def test_visit_refuses_results_of_another_commit(tmp_path, monkeypatch):
    Visit(tmp_path / "a.json", FakeSession(), "cpu", "fp32").take(Step("both", ("x.py",), 1))
    before = (tmp_path / "a.json").read_bytes()
    monkeypatch.setattr(visit, "describe", lambda device: {"commit": "0123abc"})
    with pytest.raises(ValueError, match=r"expected results of commit 0123abc, found those of .*move the file away"):
        Visit(tmp_path / "a.json", FakeSession(), "cpu", "fp32")
    assert (tmp_path / "a.json").read_bytes() == before


def test_part_b_tunes_what_is_farthest_from_its_goal(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    options = argparse.Namespace(output=tmp_path, device="cpu", seconds=1.0, quick=False)
    with pytest.raises(ValueError, match="expected times of the Triton backend there: run --part a first"):
        gpu.part_b(options)
    medians = {(49, "forward"): 11e-6, (49, "forward_backward"): 36e-6, (1024, "forward"): 1e-3, (1024, "forward_backward"): 1e-3}
    rows = [
        {"case": f"b16_h8_p4_{n}x{n}_d64", "direction": way, "contender": "triton", "seconds": {"median": seconds}}
        for (n, way), seconds in medians.items()
    ]
    (tmp_path / "a.json").write_text(json.dumps({"rows": rows}))
    names = [step.name for step in gpu.part_b(options)]
    assert names[0] == "tune forward"
    assert sorted(names[1:3]) == ["tune backward_keys", "tune backward_queries"]
    assert names[3:] == ["1024 patches, forward_backward", "1024 patches, forward"]
    first, *_, last = gpu.part_b(options)
    assert first.command == ("-m", "diffrgen_kernels.tune", "--sides", "32", "--kernel", "forward")
    assert first.environment == last.environment == {"DIFFRGEN_TUNED": str(tmp_path / "tuned.json")}


def test_gpu_script_needs_a_commit(monkeypatch, capsys):
    monkeypatch.setattr(gpu, "commit", lambda: None)
    with pytest.raises(SystemExit) as ended:
        gpu.parse(["--part", "a", "--device", "cpu"])
    assert ended.value.code == 2
    assert "--commit: expected the commit that is measured" in capsys.readouterr().err
