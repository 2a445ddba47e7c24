"""The benchmark: it refuses what is wrong, counts what it says, and its scripts run to the end on a CPU."""

from __future__ import annotations

import doctest
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import aggregation
import data
import generation
import gpu
import inputs
import memory
import numpy as np
import plot
import pytest
import retrieval
import table
import torch
import truth
from cases import QUICK_CASES, work
from comparison import Comparison
from contenders import CONTENDERS, Absent, build
from kernel_cases import BENCH_CASES, Case, dense
from limits import Limits
from network import SETTINGS, make_batch, make_network
from parts import parts_of, time_shares
from session import Session
from timing import Spread, interleave

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
    assert set(gpu.GOALS) < set(patches)
    assert all((case.batch, case.heads, len(case.orders), case.dim) == (16, 8, 4, 64) for case in patches.values())
    assert {name for goals in gpu.GOALS.values() for name in goals["times"]} < set(CONTENDERS)


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


def test_session_outlives_failures(tmp_path):
    session = Session(1, tmp_path / "log.txt")
    assert session.run("bad", ["-c", "print('word'); raise SystemExit(3)"], 1).status == "exit 3"
    assert session.run("slow", ["-c", "import time; time.sleep(60)"], 0.1).status == "out of time"
    good = session.run("good", ["-c", "print(7)"], 1)
    assert (good.ok, good.tail.splitlines()[-1]) == (True, "7")
    assert "word" in session.log.read_text()
    session.deadline = 0.0
    assert session.run("late", ["-c", ""], 1).status == "not started"


def test_goals_by_hand():
    name = "b16_h8_p4_49x49_d64"
    medians = {("native", "forward"): 9e-6, ("triton", "forward"): 12e-6, ("eager", "forward"): 40e-6}
    rows = [
        {"case": name, "direction": direction, "contender": contender, "seconds": {"median": seconds}}
        for (contender, direction), seconds in medians.items()
    ]
    verdicts = {verdict.quantity: verdict for verdict in gpu.judge(rows) if verdict.case == name}
    assert (verdicts["forward, ms"].measured, verdicts["forward, ms"].met) == (pytest.approx(0.009), True)
    eager = verdicts["forward, times eager"]
    assert (eager.goal, eager.measured, eager.met) == (5.0, pytest.approx(40 / 9), False)
    assert verdicts["forward, times compiled"].measured is None
    assert not verdicts["forward_backward, ms"].met


def test_input_sets_are_one_on_a_cpu():
    (only,) = inputs.input_sets(CASE, torch.float32, "cpu")
    assert only.nbytes == 4 * (3 * 3 * 3 * 8 * (14 + 12 + 12) + 3 * 3 + 3 * 14 * 3 * 8)


@pytest.mark.parametrize("module", [table, plot])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


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


def test_gpu_script_runs_on_a_cpu(tmp_path):
    command = [sys.executable, "bench/gpu.py", "--device", "cpu", "--quick", "--seconds", "0.1", "--minutes", "60"]
    command += [
        "--steps",
        "backends",
        "errors",
        "benchmark",
        "tune",
        "training",
        "generation",
        "--output",
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    results = json.loads((tmp_path / "results.json").read_text())
    assert (run.returncode, [each["status"] for each in results["commands"]]) == (0, ["ok"] * 8), run.stdout
    assert "'reference': 'ok'" in results["backends"]
    assert {row["tensor"] for row in results["errors"]["worst"]} == {"out", "dq", "dk", "dv", "dalpha"}
    rows = json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    assert {row["case"] for row in rows if row["contender"] == "eager"} == {case.name for case in QUICK_CASES}
    assert results["training_synthetic"]["settings"]["quick"]["reference_over"]["fused"] > 0
    assert results["aggregation"]["blocks"]["quick"]["reference_over_fused"] > 0
    (generated,) = results["generation"]["results"]
    assert min(generated["reports_per_second"].values()) > 0
    assert [round(sum(parts.values()), 6) for parts in generated["shares"].values()] == [1.0] * 4
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")
    assert "median us" in run.stdout
