"""The report in Japanese: all of it, with the same numbers, and nothing in English that the report itself says."""

from __future__ import annotations

import ast
import json
import re
import string
from pathlib import Path

import pytest

from polygraft import cli
from polygraft.report import Meta, intervals, numbers, render, views
from polygraft.report.strings import EN, FIXED_UNDER, LANGUAGES, named, spoken_language, strings
from polygraft.report.strings_ja import CELLS, JA, SENTENCES, WORDS
from polygraft.result import Curve, Estimate, InputRef, Result, Table
from reporting import Page, a_map, a_meta, a_result

SOURCE = Path(cli.__file__).parents[1]
# Latin letters that a Japanese page may hold: names of formats and programs, addresses of weights, signs of statistics, units.
NAMES = {"polygraft", "SHA", "n", "UTC", "result", "json", "embed", "norm", "head", "attn", "ffn", "B", "kB", "MB", "GB"}


def fields(text: str) -> list[str]:
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})


def japanese(**more) -> str:
    """A page whose every foreign text is Japanese already, so that any English on it is the report's own."""
    return render([a_result("あ", **more)], Meta(**(vars(a_meta("あ")) | {"language": "ja"})))


def test_both_languages_have_every_key_with_the_same_fields():
    assert set(SENTENCES) == set(EN)
    differing = {k for k in EN if fields(EN[k]) != fields(SENTENCES[k])} - {"when"}
    assert not differing and set(fields(SENTENCES["when"])) <= {"year", "month", "day", "time", "iso"}


def test_every_sentence_is_translated():
    same = {k for k in EN if EN[k] == SENTENCES[k]}
    assert not same
    latin = {k: re.sub(r"\{\w+\}", "", v) for k, v in SENTENCES.items()}
    assert {k for k, v in latin.items() if not re.search(r"[ぁ-んァ-ヶ一-龠]", v)} == {"interval"}


def test_nothing_english_of_the_report_is_left_on_a_japanese_page():
    rows = tuple((f"行 {i}", i) for i in range(300))
    long = Table("あ", ("い", "う"), rows)
    empty = Table("空", ("い", "う"), ())
    heat = Table("熱", ("い", "う"), (("あ", Estimate(1.0, 0.5, 1.5, 9, "points", "better")),), heat=True)
    thick = Curve("あ", tuple(range(900)), {"い": tuple(float(i) for i in range(900))})
    odd = Table("あ", ("い", "う"), (("あ", float("nan")),))
    small = a_map(text="あ", values=tuple(tuple(1e-5 * (i + 1) for i in range(12)) for _ in range(5)), outside={"embed": None, "head": 1e-5})
    own = set(re.findall(r"[A-Za-z]+", json.dumps(a_result("あ").to_json(), ensure_ascii=False))) - set(" ".join(WORDS | CELLS).split())
    for html in (japanese(), japanese(tables=(long, empty, heat, odd), curves=(thick,), maps=(small,)), japanese(caveats=(), inputs=()),
                 render([], Meta(name="あ", language="ja", missing=("い",), started="2026-01-02T03:04:05Z")),
                 render([Result("あ", "い", "う", ("え",))], Meta(name="あ", language="ja"))):
        seen = Page(html)
        shown = seen.text() + "\n".join(v for _, k, v in seen.attributes if k in ("aria-label", "title"))
        words = set(re.findall(r"[A-Za-z]+", re.sub(r"\d+\.\d+(\.\w+)*", "", shown)))
        assert words <= NAMES | own, sorted(words - NAMES - own)


def test_the_template_speaks_through_the_table_alone():
    template = (SOURCE / "report/template/report.html").read_text()
    plain = re.sub(r"\{[{%].*?[%}]\}|<[^>]*>", " ", template, flags=re.DOTALL)
    assert set(re.findall(r"[A-Za-z]{3,}", plain)) <= {"polygraft", "DOCTYPE"}
    used = set(re.findall(r"\bt\.(\w+)", template))
    assert used <= set(EN)


def test_every_sentence_of_the_table_is_spoken_somewhere():
    code = "".join(p.read_text() for p in sorted((SOURCE / "report").rglob("*.py")) if not p.name.startswith("strings"))
    code += (SOURCE / "report/template/report.html").read_text()
    assert not {k for k in EN if not re.search(rf"\bt\.{k}\b|\bt\[[\"']{k}[\"']\]", code)} - set(intervals.MARKS)


def test_the_page_says_its_language_and_that_steps_keep_theirs():
    html = japanese()
    assert '<html lang="ja">' in html and SENTENCES["foreign"] in html
    assert '<html lang="en">' in render([a_result()]) and SENTENCES["foreign"] not in render([a_result()])
    assert '<html lang="en">' in render([a_result()], Meta(language="eo")), "a page that is in English says so"
    assert spoken_language("ja") == "ja" and strings("eo") == EN


def test_the_numbers_are_those_of_the_english_page():
    def digits(html: str) -> list[str]:
        return sorted(re.findall(r"\d[\d,.]*", Page(html[html.index("<main>"):]).text()))

    texts = {"title": "あ", "summary": ("あ",), "tables": (Table("あ", ("あ", "い"), (("あ", Estimate(11.25, 3.5, 19.0, 100, "%", "better")),)),)}
    found = [digits(render([a_result("あ", **texts)], Meta(name="あ", language=lang))) for lang in LANGUAGES]
    extra = digits("<main>" + "".join(SENTENCES[k] for k in ("how_to_read", "maps_intro", "samples_intro")))
    english = digits("<main>" + "".join(EN[k] for k in ("how_to_read", "maps_intro", "samples_intro")))
    for words, own in zip(found, (english, extra)):
        for word in own:
            words.remove(word)
    assert found[0] == found[1]


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 秒"), (312, "5 分 12 秒"), (7800, "2 時間 10 分"), (3600, "1 時間")])
def test_durations(seconds, text):
    assert numbers.duration(seconds, JA) == text


def test_times_intervals_and_undefined_numbers():
    assert numbers.when("2026-01-02T03:04:05Z", JA) == "2026年1月2日 03:04:05（UTC）"
    assert numbers.when("2026-01-02T03:04:05Z") == "2026-01-02T03:04:05Z" and numbers.when("昨日", JA) == "昨日"
    assert intervals.words(Estimate(-11.0, -19.0, -3.0, 9, "points", "worse"), JA) == ("−11 ポイント", "−19～−3")
    assert numbers.number(float("inf"), t=JA) == "未定義" == numbers.fixed(float("nan"), 2, t=JA)


def test_a_name_that_looks_like_a_fixed_word_stays_a_name():
    table = Table("t", ("model", "status"), (("held", "held"), ("worse", "failed, uncertain")), "passed: every `must` held")
    seen = views.table_view(table, views.Limits(), "", JA)
    assert [[c["text"] for c in row] for row in seen["rows"]] == [["held", "満たす"], ["worse", "満たさない（不確実）"]]
    assert [c["text"] for c in seen["columns"]] == ["モデル", "判定"] and seen["notes"] == ["合格：必須の要求をすべて満たしています。"]


def test_a_conclusion_begins_in_japanese_and_stays_first():
    html = render([Result("s@1", "s", "t", ("Words.", "No: it does not help.", "Criteria: not met."))], Meta(language="ja"))
    text = Page(html).text()
    assert text.index("いいえ： it does not help.") < text.index("Words.") and "基準：満たしていません。" in text


def test_fixed_words_are_words_that_steps_write():
    """A word of the table that no step writes would never be seen."""
    written = set()
    for path in SOURCE.rglob("*.py"):
        if path.name.startswith("strings"):
            continue
        written |= {n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    joined = {"held, uncertain", "failed, uncertain", "Criteria: met.", "Criteria: not met."}  # put together by `verdicts.criteria`
    assert set(WORDS | CELLS) - joined <= written
    assert named(JA, "満") == "満" and {"status", "verdict"} <= FIXED_UNDER


def test_samples_name_their_language_in_japanese():
    assert views.language_name("sw", JA) == "スワヒリ語 (sw)" and views.language_name("zh-Hant", JA) == "中国語（繁体字） (zh-Hant)"
    assert views.language_name("mi", JA) == "Māori (mi)" or "mi" in views.language_name("mi", JA)
    assert views.language_name("<b>", JA) == "<b>"


@pytest.mark.parametrize("payload", ["مرحبا بالعالم", "日本語の題名：「層」", "שלום", "<b>層</b>", "{left} {0}", "ｱｲｳ\u202eabc"])
def test_any_script_stands_escaped_on_a_japanese_page(payload):
    html = render([a_result(payload, inputs=(InputRef(payload, payload),))], Meta(name=payload, language="ja"))
    seen = Page(html)
    assert not seen.wrong and seen.tags.count("b") == render([a_result("あ")]).count("<b>")
    assert views.clean(payload).split("\n")[0][:4] in seen.text()


def test_the_verb_writes_japanese(tmp_path, monkeypatch, capsys):
    from polygraft.files import commit
    from polygraft.store import RunFolder, write_result

    run = RunFolder(tmp_path / "r")
    run.begin("recipe: 1\nname: 層\n", "", [("a", "eval@1", run.step("a", "0" * 12))])
    with commit(run.step("a", "0" * 12), {"kind": "step"}) as part:
        write_result(part, a_result(id="a"))
    page = run.path / "report.html"
    assert cli.run(["report", str(run.path), "--lang", "ja"]) == 0
    assert SENTENCES["answer"] in page.read_text() and str(page) in capsys.readouterr().out
    assert cli.run(["report", str(run.path)]) == 0 and SENTENCES["answer"] not in page.read_text()
    assert cli.run(["report", str(run.path), "--lang", "jp"]) == 2 and "ja" in capsys.readouterr().err
