"""The measurements themselves: whoever is compared has as many tries as we have."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

BENCH = Path(__file__).parent.parent / "bench"


def script(name: str):
    spec = importlib.util.spec_from_file_location(name, BENCH / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_every_way_of_reading_runs_in_every_round(monkeypatch):
    bench, ran = script("bench_analyze"), Counter()
    asked = []
    real = bench.ways
    monkeypatch.setattr(bench, "ways", lambda *given: asked.append(given) or {n: lambda n=n: ran.update([n]) for n in names})
    live = SimpleNamespace(model=SimpleNamespace(base_model=None), anatomy=SimpleNamespace(layers=1, sizes=SimpleNamespace(vocab=300)))
    names = list(real(live, [], None))
    assert any(n.startswith("usual") for n in names)
    best = bench.measure(live, 200, 32, 2, 3)
    assert ran == dict.fromkeys(names, 3) and list(best) == names and len(asked) == 1


def test_the_usual_way_of_editing_takes_its_turn_with_the_others(monkeypatch, capsys):
    bench, ran = script("bench_steer"), Counter()

    class Under:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            ran.update([self.name])

        def __exit__(self, *_):
            pass

    conditions = {name: (lambda name=name: Under(name)) for name in ("unedited", "set to 0", "naive: set to 0")}
    bench.report("engine", None, conditions, lambda _live, tokens: tokens, rounds=4, tokens=8)
    assert ran == dict.fromkeys(conditions, 5)  # one to warm up
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_stages_add_up(capsys):
    bench = script("bench_slam_stages")
    costs = {bench.SLAM: (10.0, 1000), bench.ALIGN: (20.0, 1000), bench.REASON: (40.0, 4000)}
    bench.report(costs, {bench.ALIGN: 7_473, bench.REASON: 7_473}, examples_a_round=10)
    said = capsys.readouterr().out
    assert "Freezing alone: 2.00 times less" in said
    # an example costs 1, 2 and 4 seconds: (2 + 4) / 1 where stage two has as many examples, and (2 + 4) / (1 + 4) with the start's training
    assert "= 6.0 (SLAM's abstract" in said and "counted too: 1.20" in said


def test_sparsegpt_s_reference_sums_the_same_in_batches_as_one_by_one():
    import torch

    bench, x = script("bench_prune"), torch.randn(5, 3, 6)
    together, alone = bench.Reference(torch.nn.Linear(6, 4)), bench.Reference(torch.nn.Linear(6, 4))
    for some in x.split(2):
        together.add(some)
    for window in x:
        alone.add(window[None])
    flat = x.reshape(-1, 6)
    assert torch.allclose(together.h, alone.h, atol=1e-5) and torch.allclose(alone.h, 2 / 5 * flat.T @ flat, atol=1e-5)


def test_the_study_s_time_is_counted_by_what_it_was_spent_on():
    bench = script("bench_prune_study")
    place = SimpleNamespace(work=lambda x: x + 1)
    real = place.work
    with bench.counted({"work": (place, "work")}) as spent:
        assert place.work(1) == 2 and place.work(x=2) == 3
    assert place.work is real and set(spent) == {"work"} and 0 <= spent["work"] < 5
    assert bench.shown(None) == "" and bench.shown(0.25) == "0.2500" and bench.shown("en") == "en"
