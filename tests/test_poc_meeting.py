"""The page for a decision meeting: plain sentences, every number in them at its place in the table, in both languages."""

from __future__ import annotations

import re
import string
from dataclasses import replace
from pathlib import Path

import pytest

from polygraft.poc import meeting, meeting_words
from polygraft.poc.decision import REASONS, STATUSES, Decision, Effect, Outcome, Reason, Serving, Spent
from polygraft.poc.meeting_words import EN, JA, WORDS
from polygraft.poc.reasons_ja import REASONS_JA
from polygraft.report import render
from polygraft.result import Estimate, Result
from reporting import Page, a_result


def effect(role, value, verdict, *, measure="accuracy of target", language="sw", unit="points", step="scores-swap", higher=True, n=200):
    e = Estimate(value, value - 4.0, value + 4.0, n, unit, verdict)
    return Effect(role, measure, language, e, 40.0, 40.0 + value, higher, f"{step}: {language} {measure}", 5.0)


def outcome(name="swap", title="Layer swap", status="gains", gain=8.0, verdict="better", **more):
    effects = (effect("target", gain, verdict, step=f"scores-{name}"), effect("english", -1.0, "not distinguishable", measure="accuracy of problems",
                                                                            language="en"),
               effect("other", 0.01, "worse", measure="bits per byte", language="ja", unit="bpb", higher=False),
               effect("other", 0.5, "better", measure="accuracy of problems", language="es"),
               effect("fidelity", -6.0, "worse", measure="language fidelity of written"))
    values = {"measure": "accuracy of target", "value": "+8 points (4 to 12)"}
    fields = {"effects": effects, "spent": Spent(750.0, 120_000, 200, 2 * 10 ** 9, 3.5), "serving": Serving(10 ** 9, 10 ** 8, 0.61, 12.0),
              "reason": Reason("gains", values), "touched": 0.234, "model": "steps/swap", "obligations": (Reason("oblige-notice", {"sources": "base"}),)}
    return Outcome(name, title, status, **fields | more)


NOTHING = Outcome("nothing", "Do nothing", "nothing", Reason("nothing"), serving=Serving(10 ** 9, 10 ** 8, 0.61, 14.0))
PRUNED = outcome("prune", "Calibrated pruning", "worse", -9.0, "worse", reason=Reason("worse", {"measure": "accuracy of target", "value": "−9"}),
                 notes=(Reason("note-zeros"),))
ABSENT = Outcome("slam", "SLAM", "absent", Reason("no-pairs", {"language": "Swahili"}))


def decision(**more) -> Decision:
    reason = Reason("adopt", {"method": "Layer swap", "measure": "accuracy of target", "value": "+8 points (4 to 12)", "cost": "12 min"})
    fields = {"stage": "full", "language": "sw", "language_name": "Swahili", "reference": "instruct", "verdict": "adopt", "recommended": "swap",
              "reason": reason, "outcomes": (NOTHING, outcome(), PRUNED, ABSENT), "measure": "accuracy of target", "budget_seconds": 3600.0,
              "equal": Reason("equal", {"steps": "200", "rows": "8", "length": "256"}), "spent_seconds": 1500.0, "currency": "JPY",
              "caveats": (Reason("caveat-chosen"),)}
    return Decision(**fields | more)


KEPT = {"verdict": "keep", "recommended": "nothing", "reason": Reason("keep-small", {"n": "200", "detectable": "9 points"}),
        "outcomes": (NOTHING, outcome(status="even", gain=2.0, verdict="not distinguishable"), PRUNED)}
UNDECIDED = {"verdict": "undecided", "recommended": "", "stage": "smoke", "reason": Reason("undecided-smoke", {"count": "3", "planned": "4"}),
             "outcomes": (NOTHING, Outcome("swap", "Layer swap", "unmeasured", Reason("unmeasured")))}
CASES = {"adopt": {}, "keep": KEPT, "undecided": UNDECIDED, "no prices": {"currency": "", "outcomes": (
    replace(NOTHING, serving=Serving()), outcome(spent=Spent(750.0), serving=Serving(), touched=None))}}


def fields(text):
    return sorted({name for _, name, _, _ in string.Formatter().parse(text) if name})


def lead(html: str) -> str:
    return html[html.index('id="decision"'):html.index('id="numbers"')]


def plain(html: str) -> str:
    """A page's text with a place on one line."""
    return " ".join("".join(t for tag, t in Page(html).texts if tag != "style").split())


@pytest.mark.parametrize("language", meeting.LANGUAGES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_number_of_a_sentence_leads_to_itself_in_the_table(case, language):
    html = meeting.page(decision(**case), language)
    seen = Page(html)
    assert not seen.wrong and f'<html lang="{language}">' in html and not re.search(r"https?://|url\((?!#)|<script", html)
    ids = [v for _, k, v in seen.attributes if k == "id"]
    assert len(ids) == len(set(ids))
    links = re.findall(r'<a href="#([^"]+)">(.*?)</a>', lead(html))
    assert links or case is UNDECIDED
    for place, text in links:
        assert place in ids
        cell = re.search(rf'<(?:span class="change"|h3) id="{place}"[^>]*>(.*?)</(?:span|h3)>', html[html.index('id="numbers"'):], re.DOTALL)
        assert re.search(r"[\d.]+", text) is None or set(re.findall(r"[\d.]+\d", text)) <= set(re.findall(r"[\d.]+\d", cell[1])) or text == "200"
    spoken = re.sub(r"<a .*?</a>", "", lead(html))
    assert case is KEPT or not re.search(r"[+−]\d", spoken), "a change that is no link"


@pytest.mark.parametrize("language", meeting.LANGUAGES)
def test_links_into_the_report_are_places_of_the_report(language):
    html = meeting.page(decision(), language)
    report = render([a_result(id="scores-swap"), a_result(id="scores-prune"), Result("x@1", "swap", "t", ("s",))])
    ids = {v for _, k, v in Page(report).attributes if k == "id"}
    found = set(re.findall(r'href="report\.html#([^"]+)"', html))
    assert found == {"step-scores-swap", "step-scores-prune"} <= ids and "step-swap" in ids


def test_an_adopted_method_in_plain_sentences():
    text = plain(lead(meeting.page(decision())))
    for words in ("Recommendation: Layer swap.", "In Swahili, Layer swap changed accuracy of your evaluation from 40.0 % to 48.0 %, that is by "
                  "+8.0 points (4.0 to 12.0), better.", "In English it changed accuracy of word problems by −1.0 points (−5.0 to 3.0), not distinguishable.",
                  "1 of 2 measures are worse, 1 better and 0 not distinguishable; the least favourable is bits per byte (Japanese): 0.0 bpb",
                  "A risk to know: answering in the language: −6.0 points", "Not measured: copying names and numbers, refusing to answer.",
                  "Making it took 12 min 30 s, 120,000 training tokens, 3.50 JPY and changed 23.4 % of the weights.",
                  "Serving it: 12.0 JPY for a million characters", "; today: 14.0 JPY for a million characters.", "What the licences oblige to: base: keep the copyright notice",
                  "This rests on 200 items; a change of less than about 5.0 points would not have shown."):
        assert words in text, words
    assert "Next:" not in text and len(re.findall(r"<p ", lead(meeting.page(decision())))) <= 12


def test_doing_nothing_is_said_first_and_the_best_try_after_it():
    text = plain(lead(meeting.page(decision(**KEPT))))
    assert text.index("change nothing") < text.index("would not show") < text.index("The largest change in Swahili was by Layer swap: +2")
    assert "Recommendation: Layer swap" not in text
    assert "No recommendation yet." in plain(lead(meeting.page(decision(**UNDECIDED)))) and "Next: the pilot" in plain(meeting.page(decision(**UNDECIDED)))


def test_a_saving_is_told_with_its_reason():
    saving = Reason("adopt-saving", {"language": "Swahili", "method": "Layer swap", "saving": "40 %"})
    for language, words in (("en", "makes serving cheaper by 40 %"), ("ja", "層の入れ替え（Layer swap）は運用コストを 40 % 下げ")):
        assert words in plain(lead(meeting.page(decision(reason=saving), language)))


def test_japanese_says_the_same_numbers():
    english, japanese = (lead(meeting.page(decision(), language)) for language in meeting.LANGUAGES)
    assert re.findall(r'href="#([^"]+)"', english) and sorted(re.findall(r'href="#([^"]+)"', english)) == sorted(re.findall(r'href="#([^"]+)"', japanese))
    text = plain(japanese)
    for words in ("推奨：層の入れ替え（Layer swap）の採用。", "スワヒリ語では", "貴社の評価の正解率", "+8.0 ポイント（4.0～12.0）、改善", "12 分 30 秒", "著作権表示"):
        assert words in text, words


def test_nothing_english_of_the_page_is_left_in_japanese():
    known = {"instruct", "Layer", "swap", "SLAM", "JPY", "bpb", "base", "GB", "MB", "n", "pairs", "written", "vLLM", "Do", "nothing"}
    for case in CASES.values():
        words = set(re.findall(r"[A-Za-z]+", plain(meeting.page(decision(**case), "ja"))))
        assert words <= known, words - known


def test_both_languages_have_every_sentence_with_the_same_fields():
    assert set(EN) == set(JA) and set(REASONS) == set(REASONS_JA) and tuple(WORDS) == meeting.LANGUAGES
    assert not {k for k in EN if fields(EN[k]) != fields(JA[k])} and not {k for k in REASONS if fields(REASONS[k]) != fields(REASONS_JA[k])}
    assert all(set(told) == set(STATUSES) for told in meeting_words.STATUSES.values())
    assert {k for k in EN if EN[k] == JA[k]} == {"target"}


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_is_said_in_japanese(code):
    values = {name: f"〈{name}〉" for name in fields(REASONS[code])}
    said = str(meeting.Tongue("ja", decision()).reason(Reason(code, values)))
    assert all(v in said for v in values.values()) and re.search("[ぁ-ん]", said)


def test_every_sentence_is_spoken():
    here = Path(meeting.__file__)
    code = here.read_text() + (here.parents[1] / "report/template/meeting.html").read_text()
    by_value = {"better", "worse", "not distinguishable", "smoke", "pilot", "full", "next_smoke", "next_pilot"}
    assert {k for k in EN if not re.search(rf"[\"']{k}[\"']|t\.{k}\b", code)} <= by_value


def test_a_verdict_that_none_can_tell_is_no_plain_score():
    e = replace(effect("target", 3.0, ""), detectable=None)
    text = plain(meeting.page(decision(outcomes=(NOTHING, outcome(effects=(e,))))))
    assert "+3.0 points (−1.0 to 7.0), no verdict" in text and "This rests on 200 items." in text


@pytest.mark.parametrize("language, words", [
    ("en", "A loss beyond what is tolerated is not excluded in: accuracy of word problems (English)."),
    ("ja", "許容範囲を超える損失の可能性が残るもの：文章題の正解率（英語）。")])
def test_what_is_not_excluded_is_said_in_plain_words(language, words):
    note = Reason("note-unsure", {"measure": "accuracy of problems (en)", "value": "−1.0 points [−5.0, 3.0]"})
    text = plain(meeting.page(decision(outcomes=(NOTHING, outcome(notes=(note,)))), language))
    assert words in text and "accuracy of problems" not in text and "(en)" not in text


@pytest.mark.parametrize("payload", ["<script>alert(1)</script>", "{0} {measure} {{7*7}}", "\" onmouseover=\"x", "مرحبا", "a\u202eb\x1b[31m"])
def test_whatever_a_decision_holds_is_text(payload):
    bad = outcome("swap", payload, reason=Reason("refused", {"why": payload}), obligations=(Reason("oblige-terms", {"sources": payload}),),
                  effects=(effect("target", 1.0, "better", measure=payload), effect("other", 1.0, payload, language=payload)))
    d = decision(language_name=payload, language="x-other", reference=payload, currency=payload, outcomes=(NOTHING, bad), report="report.html")
    for language in meeting.LANGUAGES:
        seen = Page(meeting.page(d, language))
        assert not seen.wrong and set(seen.tags) == set(Page(meeting.page(decision(), language)).tags)
        assert not any(k.startswith("on") for _, k, _ in seen.attributes)


def test_a_decision_read_again_gives_the_same_page():
    again = Decision.from_json(decision().to_json())
    assert meeting.page(again, "ja") == meeting.page(decision(), "ja")
