"""Task files and their data that cannot be asked: each refused with its place, what was found, and a fix; none silently."""

import csv
import gzip
import io
import json
import lzma
import re

import pytest

from polygraft.errors import InputError, RecipeError, UserError
from polygraft.evals import tasks
from polygraft.evals.tasks import rendering, rows, templates
from polygraft.evals.verdicts import criteria

CHOICE = {"task": "t", "output_type": "multiple_choice", "source": {"files": ["d.jsonl"]}, "doc_to_text": "{{q}}",
          "doc_to_choice": ["{{a}}", "{{b}}"], "doc_to_target": "{{t}}"}
WRITTEN = {"task": "t", "output_type": "generate_until", "source": {"files": ["d.jsonl"]}, "doc_to_text": "{{q}}", "golds": ["{{a}}"],
           "generation": {"max_gen_toks": 8}}
ROW = {"q": "Why?", "a": "yes", "b": "no", "t": 0}


def items(tmp_path, task=None, data=ROW, name="d.jsonl", **options):
    if isinstance(data, dict):
        data = json.dumps(data)
    (tmp_path / name).write_bytes(data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass"))
    (tmp_path / "t.yaml").write_text(json.dumps({**(task or CHOICE)}))
    return tasks.items(tasks.load(str(tmp_path / "t.yaml")), "en", **options)


ROWS_REFUSED = {
    "column missing": ({"q": "Why?", "aa": "y", "b": "n", "t": 0}, "needs a column", "did you mean `aa`"),
    "null cell": (ROW | {"a": None}, "nothing", "a"), "list cell": (ROW | {"q": ["x"]}, "list", "doc_to_text"),
    "empty question": (ROW | {"q": " "}, "question is empty", "q"), "empty choice": (ROW | {"b": ""}, "choices", "empty"),
    "target too large": (ROW | {"t": 2}, "none of the choices", "from 0 to 1"),
    "target a word": (ROW | {"t": "yes"}, "not the place", "labels"), "target negative": (ROW | {"t": -1}, "not the place", "from 0"),
    "lone surrogate": ('{"q": "\\ud800", "a": "y", "b": "n", "t": 0}', "half of a character", "U\\+D800"),
    "1 MB choice": (ROW | {"a": "x" * 1_000_000}, "too long for an answer", "1,000,000 characters"),
    "broken JSON": ('{"q": ', "not JSON", ":1"), "NaN": ('{"q": NaN}', "not JSON", "NaN"), "a list": ("[1]", "not a row", "list"),
    "empty file": ("", "no rows", "at least one"), "not UTF-8": (b'{"q": "\xff"}', "not UTF-8", "0xff"),
    "second line": (json.dumps(ROW) + "\n{}", "needs a column", ":2"), "deep": ("[" * 100_000, "not JSON", ":1"),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", ROWS_REFUSED)
def test_a_row_that_is_no_item_is_refused_by_its_place(tmp_path, case):
    data, says, also = ROWS_REFUSED[case]
    with pytest.raises(InputError, match=says) as e:
        items(tmp_path, data=data)
    assert ("d.jsonl" in str(e.value) and e.value.fix is not None) or case == "a list"
    assert re.search(also, str(e.value))


TASKS_REFUSED = {
    "unknown key": ({"doc_to_txt": "x"}, "did you mean `doc_to_text`"), "unknown metric": ({"metrics": ["acuracy"]}, "did you mean"),
    "metric of the other kind": ({"metrics": ["exact_match"]}, "no such metric|cannot score"),
    "unknown shape": ({"source": {"files": ["d.jsonl"], "shape": "squadd"}}, "did you mean `squad`"),
    "no template": ({"doc_to_text": "{{q"}, "not a template"), "no choices": ({"doc_to_choice": []}, "needs `doc_to_choice:`"),
    "generation of choices": ({"generation": {"max_gen_toks": 3}}, "belongs to generate_until"),
    "no place": ({"source": {}}, "needs `files:` or `hub:`"), "bad name": ({"task": "../x"}, "task"),
    "unknown column in where": ({"source": {"files": ["d.jsonl"], "where": {"splt": "x"}}}, "`where:`"),
    "nothing left by where": ({"source": {"files": ["d.jsonl"], "where": {"q": "x"}}}, "no rows"),
    "file not there": ({"source": {"files": ["e.jsonl"]}}, "not here"), "label unknown": ({"labels": {"x": 0}}, "one of the labels"),
    "id twice": ({"id": "{{q}}"}, "two rows have one id"), "shape does not fit": ({"source": {"files": ["d.jsonl"], "shape": "squad"}}, "layout"),
    "no such words": ({"words": "maths"}, "no such file of words"),
}


@pytest.mark.group("K")
@pytest.mark.parametrize("case", TASKS_REFUSED)
def test_a_task_file_that_cannot_be_asked_is_refused(tmp_path, case):
    changed, says = TASKS_REFUSED[case]
    with pytest.raises(UserError, match=says):
        items(tmp_path, CHOICE | changed, json.dumps(ROW) + "\n" + json.dumps(ROW))


@pytest.mark.group("K")
@pytest.mark.parametrize(("shots", "task"), [(2, CHOICE), (9, CHOICE | {"examples": {"files": ["d.jsonl"]}})])
def test_more_worked_examples_than_there_are(tmp_path, shots, task):
    with pytest.raises(UserError, match="worked examples"):
        items(tmp_path, task, json.dumps(ROW) + "\n" + json.dumps(ROW), shots=shots)


@pytest.mark.group("K")
def test_a_language_that_the_task_does_not_have(tmp_path):
    with pytest.raises(RecipeError, match="no such language"):
        items(tmp_path, CHOICE | {"languages": {"sw": {}}})


# -------------------------------------------------------------------------------------------------------------- formats

TABLE = "q,a,b,t\nWhy?,yes,no,0\n\"a, \"\"b\"\"\nc\",y,n,1\n"
SAME = [("Why?", ("yes", "no"), 0), ('a, "b"\nc', ("y", "n"), 1)]
LINES = "\n".join(json.dumps({"q": q, "a": c[0], "b": c[1], "t": t}) for q, c, t in SAME)


def parquet():
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([json.loads(x) for x in LINES.split("\n")]), sink)
    return sink.getvalue()


@pytest.mark.group("K")
@pytest.mark.parametrize(("name", "data"), [
    ("d.jsonl", LINES), ("d.jsonl", "\ufeff" + LINES.replace("\n", "\r\n\r\n")), ("d.json", f"[{LINES.replace(chr(10), ',')}]"),
    ("d.csv", TABLE), ("d.csv", "\ufeff" + TABLE.replace("0\n", "0\r\n")), ("d.jsonl.gz", gzip.compress(LINES.encode())),
    ("d.csv.xz", lzma.compress(TABLE.encode())), ("d.parquet", parquet), ("d.parquet.gz", lambda: gzip.compress(parquet())),
], ids=["jsonl", "jsonl BOM CRLF", "json", "csv", "csv BOM CRLF", "jsonl.gz", "csv.xz", "parquet", "parquet.gz"])
def test_every_format_gives_the_same_items(tmp_path, name, data):
    found = items(tmp_path, CHOICE | {"source": {"files": [name]}}, data() if callable(data) else data, name)
    assert [(i.prompt, i.choices, i.target) for i in found] == SAME


@pytest.mark.group("K")
@pytest.mark.parametrize(("name", "data", "says"), [
    ("d.csv", "q,a,b,t\nWhy?,yes,no\n", "3: Why"), ("d.csv", 'q,a\n"open\n', "not CSV"), ("d.csv", "q,q\n", "one name"),
    ("d.tsv", "q\ta\nx\ty\tz\n", "not as many cells"), ("d.parquet", b"PAR1 nonsense", "not a parquet"),
    ("d.jsonl.gz", b"not gzip", "unpacked"), ("d.jsonl.xz", b"\xfd7zXZ\x00 torn", "unpacked"), ("d.xlsx", "x", "not a kind of file"),
])
def test_a_damaged_file_is_refused_by_its_name(tmp_path, name, data, says):
    with pytest.raises(InputError, match=says) as e:
        items(tmp_path, CHOICE | {"source": {"files": [name]}}, data, name)
    assert name in str(e.value)


@pytest.mark.group("K")
def test_a_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "LARGEST", 1000)
    with pytest.raises(InputError, match="too large"):
        items(tmp_path, CHOICE | {"source": {"files": ["d.jsonl.gz"]}}, gzip.compress(b" " * 100_000), "d.jsonl.gz")


# -------------------------------------------------------------------------------------------------------------- sandbox


@pytest.mark.group("M")
@pytest.mark.parametrize("template", [
    "{{ q.__class__.__mro__ }}", "{{ q|attr('__class__') }}", "{{ ''.format }}", "{{ 'x' * 1000000000 }}", "{{ '%1000000000d' % 1 }}",
    "{{ q.ljust(1000000000) }}", "{{ self._TemplateReference__context }}", "{% include 'passwd' %}", "{% import 'os' as os %}",
    "{{ lipsum() }}", "{{ cycler.__init__.__globals__ }}", "{% for i in range(100000) %}{{ q }}{{ q }}{{ q }}{% endfor %}",
    "{{ q.replace('', q.replace('', q.replace('', 'x' ~ q ~ q).replace('', q))) }}", "{{ [].append }}{{ q.encode('utf-16') }}",
    "{{ 9 ** 999999999 }}", "{{ range(100000000)|list|length }}",
])
def test_a_template_reaches_nothing_but_its_row(tmp_path, template):
    with pytest.raises(UserError):
        items(tmp_path, CHOICE | {"doc_to_text": template}, ROW | {"q": "Why? " * 20})


LONG = "{% for i in range(90000) %}"
HANGS = {
    "two loops": LONG + LONG + "{% endfor %}{% endfor %}", "a loop": LONG + "{% endfor %}",
    "a filtered loop": "{% for i in range(90000) if i < 0 %}{% endfor %}", "three loops": "{% for i in q %}" * 3 + "{% endfor %}" * 3,
    "a macro": "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "recursive": "{% for i in q recursive %}{{ loop(q) }}{% endfor %}",
    "lists of lists": "{% set a = [q, q] %}" + "{% set a = [a, a] %}" * 40 + "{{ a|string }}",
    "doubled by ~": "{% set a = q %}" + "{% set a = a ~ a %}" * 40 + "{{ a }}", "with": "{% with a = q %}{{ a }}{% endwith %}",
    "doubled by +": "{% set a = q %}" + "{% set a = a + a %}" * 40 + "{{ a }}",
    "joined": "{{ q.join(q).join(q.join(q)) }}", "the filter join": "{{ q|join(q)|join(q|join(q)) }}",
}


@pytest.mark.group("M")
@pytest.mark.parametrize("case", HANGS)
def test_a_template_that_makes_much_out_of_little_is_refused(tmp_path, case):
    with pytest.raises(UserError):
        items(tmp_path, CHOICE | {"doc_to_text": HANGS[case]}, ROW | {"q": "Why? " * 40})


def test_loops_two_deep_over_a_row_stay():
    text = "{% for a in rows %}{% for b in a %}{{ loop.index }}{{ b + '.' }}{% endfor %}{% set n = loop.length %}/{{ n }}{% endfor %}"
    text += "{{ rows[0]|join('-') }}{{ ','.join(rows[1]) }}{{ 1 + 2 }}"
    assert templates.render(text, {"rows": [["x", "y"], ["z"]]}, "row") == "1x.2y./21z./2x-yz3"
    with pytest.raises(RecipeError, match="too many steps"):
        templates.render(HANGS["two loops"], {}, "row")


@pytest.mark.group("K")
def test_a_csv_cell_is_as_long_as_a_text_may_be_and_a_longer_one_names_its_row(tmp_path):
    before = csv.field_size_limit()
    [row] = rows.parse(tmp_path / "d.csv", b"q\n" + b"x" * 1_000_000 + b"\n")
    assert len(row.fields["q"]) == 1_000_000
    with pytest.raises(InputError, match=r"d\.csv:3: a cell is too long(.|\n)*1,000,000"):
        list(rows.parse(tmp_path / "d.csv", b"q\nshort\n" + b"x" * 1_000_001 + b"\n"))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(("text", "says"), [("", "expected: a task file"), ("task: !x t\n", "not used in task files"),
                                            ("task: &a t\n", "not used in task files")])
def test_messages_about_yaml_call_the_file_what_it_is(tmp_path, text, says):
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(RecipeError) as e:
        tasks.load(str(tmp_path / "t.yaml"))
    assert says in str(e.value) and "recipe" not in str(e.value) and "init" not in str(e.value)
    with pytest.raises(RecipeError, match="criteria file"):
        criteria.read(tmp_path / "t.yaml")


# ------------------------------------------------------------------------------------------------------------- overflow


class Small:
    max_length = 36

    def chat(self, messages, prefix=""):
        return "".join(f"<{m['role'][0]}>{m['content']}" for m in messages) + "<a>" + prefix

    def count(self, text):
        return len(text.encode())


@pytest.mark.group("K")
@pytest.mark.parametrize(("question", "shots", "truncated"), [("Why?", 1, False), ("W" * 16, 0, False), ("W" * 60, 0, True)])
def test_what_does_not_fit_loses_its_examples_and_then_says_so(tmp_path, question, shots, truncated):
    data = "\n".join(json.dumps(ROW | {"q": q}) for q in ("aaaa?", "bbbb?", "cccc?", question))
    task = tasks.load(str(_written(tmp_path, CHOICE)))
    (tmp_path / "d.jsonl").write_text(data)
    [item] = tasks.items(task, "en", shots=3)
    for chat in (False, True):
        sent = rendering.asked(task, item, Small(), chat=chat)
        assert (sent.shots, sent.truncated) == (shots, truncated)
        assert sent.text.count("cccc?") == shots and "aaaa?" not in sent.text and question in sent.text


def _written(folder, task):
    (folder / "t.yaml").write_text(json.dumps(task))
    return folder / "t.yaml"


@pytest.mark.group("K")
def test_turns_of_a_conversation_and_a_prefix(tmp_path):
    task = CHOICE | {"prefix": "A:", "system": "Be {{language}}.", "doc_to_text": "{{q}}\n", "description": "Quiz.\n\n"}
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps(ROW | {"q": q}) for q in ("1?", "2?")))
    loaded = tasks.load(str(_written(tmp_path, task)))
    [item] = tasks.items(loaded, "en", shots=1)
    form = rendering.form(loaded, "en")
    assert rendering.plain(item, 1, form) == "Quiz.\n\n1?\nA: yes\n\n2?\nA:"
    assert [(m["role"], m["content"]) for m in rendering.messages(item, 1, form)] == [
        ("system", "Be en.\n\nQuiz."), ("user", "1?"), ("assistant", "A: yes"), ("user", "2?")]


@pytest.mark.group("K")
def test_a_written_task_needs_a_gold_of_its_metrics_kind(tmp_path):
    with pytest.raises(InputError, match="a number"):
        items(tmp_path, WRITTEN | {"metrics": ["numbers.accuracy"]})
    assert items(tmp_path, WRITTEN)[0].golds == ("yes",)


# ----------------------------------------------------------------------------------------------------------------- hub


@pytest.mark.group("K")
def test_a_hub_that_does_not_answer_and_a_run_that_may_not_ask(tmp_path, monkeypatch):
    task = CHOICE | {"source": {"hub": {"path": "org/name", "file": "d.jsonl", "revision": "abc"}}}
    with pytest.raises(InputError, match="offline"):
        items(tmp_path, task, offline=True)
    asked = []

    def download(repo, file, repo_type, revision):
        asked.append((repo, file, repo_type, revision))
        if len(asked) == 1:
            raise OSError("no route to host")
        return str(tmp_path / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(InputError, match="no route to host"):
        items(tmp_path, task)
    assert items(tmp_path, task)[0].choices == ("yes", "no") and asked[-1] == ("org/name", "d.jsonl", "dataset", "abc")
