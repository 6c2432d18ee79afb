"""A merge in memory: the bytes of the written one, and the same records under a name that its sources and profile decide."""

from __future__ import annotations

import json

import pytest

from polygraft import evals, merge
from polygraft import model as live_models
from polygraft.errors import InputError
from polygraft.evals import identity, steps
from polygraft.evals.settings import EvalConfig
from polygraft.merge import live, makers
from polygraft.sources import resolve

NAMES = ("base", "one", "two")


@pytest.fixture
def three(tiny):
    return lambda family, **more: [resolve(tiny(family, seed=s, noise=0.02 * bool(s), **more)) for s in (0, 1, 2)]


def applied(sources, make):
    """(profile, the first source with the profile followed into it)"""
    made = live_models.load(sources[0], dtype="auto")
    profile = make(made.anatomy)
    live.apply(profile, made, [s.weights for s in sources])
    return profile, made


@pytest.mark.parametrize(("family", "dtype"), [("llama", "bfloat16"), ("qwen3_moe", "float16"), ("gemma2", "float32"), ("gpt2", "bfloat16")])
def test_the_bytes_are_those_of_the_written_merge(three, tmp_path, family, dtype):
    import torch

    sources = three(family, dtype=dtype)
    base, *experts = [s.spec for s in sources]
    merge.ties(base=base, models=experts, density=0.5, out=tmp_path / "out")
    written = live_models.load(tmp_path / "out").model.state_dict()
    _, made = applied(sources, lambda anatomy: makers.ties(anatomy, NAMES, (1.0, 1.0), density=0.5))
    found, before = made.model.state_dict(), live_models.load(base).model.state_dict()
    assert found.keys() == written.keys()
    assert all(torch.equal(found[k], written[k]) for k in found)
    assert sum(not torch.equal(found[k], before[k]) for k in found) > len(found) // 2


def test_copies_and_blends_in_another_type(three, tmp_path):
    """A half-copied swap, followed into a float32 model: the written merge as it is loaded in float32."""
    import torch

    sources = three("llama", dtype="bfloat16", layers=4)[:2]
    merge.swap(task=sources[0].spec, language=sources[1].spec, bottom=1, top=1, transition=1, out=tmp_path / "out")
    written = live_models.load(tmp_path / "out", dtype="float32").model.state_dict()
    made = live_models.load(sources[0], dtype="float32")
    live.apply(makers.swap(made.anatomy, bottom=1, top=1, transition=1), made, [s.weights for s in sources])
    assert all(torch.equal(value, written[k]) for k, value in made.model.state_dict().items())


def test_what_cannot_be_followed_is_refused(three):
    sources = three("llama", layers=2)
    made = live_models.load(sources[0])
    profile = makers.soup(made.anatomy, NAMES)
    with pytest.raises(InputError, match="not the sources"):
        live.apply(profile, made, [s.weights for s in sources[:2]])
    with pytest.raises(InputError):
        live.apply(profile, made, [sources[0].weights, sources[1].weights, three("llama", layers=4)[2].weights])


def records(folder, name):
    """(every record without the time it took, scores, likelihoods): the last may differ in their last digits with where in memory
    the weights lie."""
    rows = [json.loads(line) for path in sorted((folder / "samples").glob(f"*.{name}.jsonl")) for line in path.open(encoding="utf-8")]
    nats = [x for row in rows for x in (*row.get("choice_nats", ()), *row["scores"].get("nats", ()))]
    scores = [{k: v for k, v in row["scores"].items() if k != "nats"} for row in rows]
    return [{k: v for k, v in row.items() if k not in ("seconds", "choice_nats", "scores")} for row in rows], scores, nats


def test_the_same_records_in_memory_and_on_disk(three, tmp_path):
    from polygraft.evals import run
    from polygraft.evals.engines.hf import Scorer
    from polygraft.evals.jobs import make_jobs
    from polygraft.evals.responses import Store
    from polygraft.step import Context

    context = Context(resolve, tmp_path.joinpath)
    sources = three("llama")
    merge.soup(models=[s.spec for s in sources], out=tmp_path / "merged")
    config = EvalConfig(models=[str(tmp_path / "merged")], tasks=("problems", "problems-generate"), langs=("sw",), limit=5, store="none",
                        dtype="float32")
    (tmp_path / "disk").mkdir()
    steps.run_step(config, context, tmp_path / "disk")
    profile, made = applied(sources, lambda anatomy: makers.soup(anatomy, NAMES))
    name = identity.of_profile(sources, profile)
    with Store(tmp_path / "store", name) as store:
        scorer = Scorer(made.model, made.tokenizer, batch_tokens=config.batch_tokens)
        run.run_jobs(scorer, make_jobs(config, context), store=store, folder=tmp_path / "memory", model="merged", computed={"backend": "hf", "dtype": "float32"})
    (rows, scores, nats), (wanted, right, exact) = records(tmp_path / "memory", "merged"), records(tmp_path / "disk", "*")
    assert len(rows) == 10 and rows == wanted and scores == right
    assert nats == pytest.approx(exact, abs=1e-4)
    assert all(r["tokens"] == sum(len(f" {c}".encode()) for c in r["choices"]) for r in rows if "choices" in r)  # a byte is a token


def test_names_of_models_in_memory(three):
    """Whatever decides the weights moves the name; the folder that a source lies in does not."""
    sources = three("llama")
    anatomy = live_models.load(sources[0]).anatomy
    soup = makers.soup(anatomy, NAMES)
    name = identity.of_profile(sources, soup)
    others = [identity.of_profile(sources, makers.soup(anatomy, NAMES, (0.5, 0.25, 0.25))), identity.of_profile(sources[::-1], soup),
              identity.of_profile([sources[0], *three("llama", layers=4)[1:]], soup), identity.of_profile(sources, soup, donor=1),
              identity.of_training("job", 1), identity.of_training("job", 2), identity.of_training("job:1", 2)]
    assert len({name, *others}) == len(others) + 1 and name == identity.of_profile(sources, makers.soup(anatomy, NAMES))
    scored = evals.score(*(lambda m: (m.model, m.tokenizer))(live_models.load(sources[0])), identity=name, name="a soup",
                         tasks=["problems"], langs=["sw"], limit=2)
    assert scored.data["scores"][0]["model"] == "a soup"
