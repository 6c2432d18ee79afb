"""Run folders, sample logs, secrets and costs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polygraft import files
from polygraft.errors import InputError, ResourceError
from polygraft.files import commit
from polygraft.meter import measured, memory_limit, peak_resident
from polygraft.redact import redact
from polygraft.result import Result
from polygraft.store import RunFolder, SampleLog, read_result, verify_run, write_result

KEY = "0123456789abcdef" * 4


def made(run: RunFolder, id: str, text: str = "x") -> Path:
    folder = run.step(id, KEY)
    with commit(folder) as part:
        write_result(part, Result("toy@1", id, text))
    return folder


def test_a_step_is_done_when_its_manifest_and_sizes_say_so(tmp_path):
    run = RunFolder(tmp_path / "r")
    folder = run.step("a", KEY)
    assert folder == tmp_path / "r" / "steps" / "a-0123456789ab" and run.state(folder) == "not made yet"
    files.partial_path(folder).mkdir(parents=True)
    assert run.state(folder) == "interrupted before"
    made(run, "a")
    assert run.state(folder) is None
    (folder / "result.json").write_text("{}")
    assert run.state(folder).startswith("its folder is damaged (result.json: size 2")
    (folder / "manifest.json").write_text("not json")
    assert run.state(folder) == "its folder is damaged (not valid JSON)"


def test_results_come_in_recipe_order_and_only_finished_ones(tmp_path):
    run = RunFolder(tmp_path / "r")
    steps = [(id, "toy@1", run.step(id, KEY)) for id in ("z", "missing", "a")]
    run.begin("recipe: 1\n", "recipe: 1\n", steps)
    made(run, "a")
    made(run, "z")
    made(run, "of-an-older-run")
    assert [r.id for r in run.results()] == ["z", "a"]
    assert (tmp_path / "r" / "recipe.yaml").read_text() == "recipe: 1\n"
    assert len(list((tmp_path / "r" / "steps").iterdir())) == 3 and verify_run(tmp_path / "r") == []


@pytest.mark.parametrize("ask", [lambda p: RunFolder(p).results(), verify_run, read_result])
def test_a_folder_that_is_no_run_is_named(ask, tmp_path):
    with pytest.raises(InputError, match=str(tmp_path)):
        ask(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{}", '{"step": 3}', '{"step":"a","id":"b","title":"c","maps":[{"nope":1}]}'])
def test_a_result_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(InputError, match=r"result\.json"):
        read_result(tmp_path)


def test_partials_are_cleared_except_those_to_resume(tmp_path):
    run = RunFolder(tmp_path)
    for name in ("a-1.partial", "b-2.partial", "c-3"):
        (tmp_path / "steps" / name / "deep").mkdir(parents=True)
    assert run.clear([tmp_path / "steps" / "b-2.partial"]) == [tmp_path / "steps" / "a-1.partial"]
    assert sorted(p.name for p in (tmp_path / "steps").iterdir()) == ["b-2.partial", "c-3"]


rows = st.lists(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
                                max_size=3), max_size=4)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(rows, rows, st.integers(0, 40))
def test_a_log_gives_back_what_was_appended_whatever_the_cut(tmp_path_factory, first, second, cut):
    path = tmp_path_factory.mktemp("log") / "deep" / "log.jsonl"
    with SampleLog(path) as log:
        log.append(first)
        log.append(second)
    data = path.read_bytes()
    assert [json.loads(line)["row"] for line in data.splitlines()] == first + second if b"\r" not in data else True
    path.write_bytes(data[: max(0, len(data) - cut)])
    with SampleLog(path) as log:
        kept = log.rows
    assert kept == (first + second)[: len(kept)] and path.read_bytes() == data[: path.stat().st_size]
    assert cut or kept == first + second


def test_a_log_line_may_hold_line_breaks_of_all_kinds(tmp_path):
    row = {"text": "a\nb\rc\u2028d\x85e\x00"}
    with SampleLog(tmp_path / "log") as log:
        log.append([row])
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1 and SampleLog(tmp_path / "log").rows == [row]


def test_a_log_says_when_the_disk_is_full(tmp_path, monkeypatch):
    log = SampleLog(tmp_path / "log")
    log.append([{"id": 1}])

    class Full(files.Ops):
        def write(self, fd, data):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "OPS", Full())
    with pytest.raises(ResourceError, match="No space left"):
        log.append([{"id": 2}])
    assert log.rows == [{"id": 1}] == SampleLog(tmp_path / "log").rows


def test_secrets_of_the_environment_are_taken_out(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh123")
    monkeypatch.setenv("SOME_API_KEY", "short")
    value = {"a": ["see hf_abcdefgh123!", 3, None], "hf_abcdefgh123": ("short",)}
    assert redact(value) == {"a": ["see [redacted]!", 3, None], "[redacted]": ["short"]}


def test_no_file_of_a_step_holds_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefgh123")
    run = RunFolder(tmp_path)
    run.begin("# hf_abcdefgh123\n", "x: hf_abcdefgh123\n", [])
    write_result(tmp_path, Result("s", "i", "hf_abcdefgh123", data={"k": "hf_abcdefgh123"}))
    with SampleLog(tmp_path / "log") as log:
        log.append([{"out": "hf_abcdefgh123"}])
    texts = [p.read_text() for p in tmp_path.rglob("*") if p.is_file()]
    assert len(texts) == 5 and not any("hf_abc" in t for t in texts)


def test_the_meter_sees_time_memory_and_bytes(tmp_path):
    with measured() as meter:
        block = bytearray(64 << 20)
        block[::4096] = b"x" * len(block[::4096])
        (tmp_path / "f").write_bytes(block[: 1 << 20])
        assert (tmp_path / "f").stat().st_size == len((tmp_path / "f").read_bytes())
        del block
    cost = meter.cost
    assert cost.seconds > 0 and cost.written_bytes >= 1 << 20 and cost.read_bytes >= 1 << 20
    assert 64 << 20 <= cost.peak_bytes < 16 << 30 and peak_resident() > 0
    with measured() as later:
        pass
    assert later.cost.peak_bytes < cost.peak_bytes - (32 << 20), "the high-water mark is of the block alone"


def test_the_meter_works_where_the_kernel_tells_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr("polygraft.meter._PROC", tmp_path / "nowhere")
    with measured() as meter:
        pass
    assert meter.cost.peak_bytes > 1 << 20 and meter.cost.read_bytes == 0


def test_the_memory_limit_is_no_more_than_the_machine_has():
    limit = memory_limit()
    assert limit is not None and 1 << 28 < limit < 1 << 50
