"""Shapes of the tasks of understanding: the layouts of the hub and of the original files made one.

Each names the layouts that it reads in its first line. Columns that a row already has are kept where nothing replaces them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from polygraft.evals.tasks.shapes_darumeru import CATEGORY

Row = dict[str, Any]
Words = Mapping[str, Any]
LETTERS = "ABCDE"
MKQA_TYPES = ("entity", "long_answer", "unanswerable", "date", "number", "number_with_unit", "short_phrase", "binary")
NAMES = ("STEM", "humanities", "social sciences", "other")


def _place(answer: Any) -> int:
    """0-based place of an answer that is given as a letter or already as a place."""
    text = str(answer).strip()
    return LETTERS.index(text.upper()) if text.isalpha() else int(text)


def belebele(rows: list[Row], words: Words) -> list[Row]:
    """flores_passage, mc_answer1 to mc_answer4, correct_answer_num (from 1), as on the hub; or passage, choices, answer."""
    return [{**r, "passage": r["flores_passage"], "choices": [r[f"mc_answer{i}"] for i in (1, 2, 3, 4)],
             "answer": int(r["correct_answer_num"]) - 1} if "flores_passage" in r else r for r in rows]


def tydiqa(rows: list[Row], words: Words) -> list[Row]:
    """SQuAD's layouts, of all languages, told apart by the id (`swahili-...`), or of one; with answers."""
    own, found = words["id"] + "-", squad(rows, words)
    if any(str(r["id"]).partition("-")[0].isalpha() for r in found):
        found = [r for r in found if str(r["id"]).startswith(own)]
    answered = [r for r in found if r["answers"]]
    if found and not answered:
        raise ValueError("no question has an answer: copies in XTREME's layout leave out those of the dev split; the task "
                         "`tydiqa-train` asks those of the train split")
    return answered


def _texts(answers: Any) -> list[str]:
    """The texts of SQuAD's `answers`, each once: {text: [...]}, [{text: ...}] or [text]."""
    found = answers["text"] if isinstance(answers, Mapping) else [a["text"] if isinstance(a, Mapping) else a for a in answers]
    return [t for t in dict.fromkeys(found) if t.strip()]


def squad(rows: list[Row], words: Words) -> list[Row]:
    """SQuAD: nested articles (`data` > `paragraphs` > `qas`), or one row a question with context, question and answers."""
    if "data" in rows[0]:
        return [{"id": q["id"], "title": article.get("title", ""), "context": p["context"], "question": q["question"],
                 "answers": _texts(q["answers"])}
                for row in rows for article in row["data"] for p in article["paragraphs"] for q in p["qas"]]
    return [{**r, "answers": _texts(r["answers"])} for r in rows]


def paws(rows: list[Row], words: Words) -> list[Row]:
    """sentence1, sentence2, label; written together again, and as lm-eval joins them, in the languages whose words say `joined`."""
    whole = [r for r in rows if r["sentence1"].strip() and r["sentence2"].strip()]
    if not words.get("joined"):
        return whole
    return [{**r, "sentence1": _written(r["sentence1"]).removesuffix(end), "sentence2": second[:1].lower() + second[1:]}
            for r in whole for second in [_written(r["sentence2"])] for end in [_end(_written(r["sentence1"]))]]


def _end(text: str) -> str:
    return text[-1:] if text[-1:] in (".", ",", ";") else ""


def _written(text: str) -> str:
    """A tokenized sentence as it would be written, by lm-eval's rules."""
    for spaced, joined in ((" n't", "n't"), (" )", ")"), ("( ", "("), ('" ', '"'), (' "', '"')):
        text = text.replace(spaced, joined)
    return re.sub(r" (['.,])", r"\1", text).strip()


def _in_turn(rows: list[Row], column: str) -> list[Row]:
    """One row of each value of the column after the other, so that the first N are from everywhere: files are sorted by subject."""
    turn: Counter[Any] = Counter()
    ranked = []
    for n, row in enumerate(rows):
        ranked.append((turn[row[column]], n))
        turn[row[column]] += 1
    return [rows[n] for _, n in sorted(ranked)]


def mmlu(rows: list[Row], words: Words) -> list[Row]:
    """MMLU's relatives: question, four choices (`choices`, A to D, or option_a to option_d), answer (A to D, or 0 to 3) and subject
    (or the name of the file or configuration): question, choices, answer, subject, topic (its name in the language), category."""
    return _in_turn([_exam_row(r, words) for r in rows], "subject")


def _exam_row(row: Row, words: Words) -> Row:
    row = {k[:1].lower() + k[1:] if k in ("Question", "Answer") else k: v for k, v in row.items()}
    options = next((n for n in (list("ABCD"), [f"option_{c}" for c in "abcd"]) if n[0] in row), None)
    choices = [row.pop(n) for n in options] if options else list(row["choices"])
    subject = str(row["subject"] if "subject" in row else row["part"]).removesuffix("_test").removesuffix("_dev")
    groups = {s: name for name, some in words.get("categories", {}).items() for s in some}
    category = row.get("subject_category") or groups.get(subject) or NAMES[CATEGORY.get(subject, 3)]
    topic = words.get("subjects", {}).get(subject, subject.replace("_", " "))
    return {**row, "choices": choices, "answer": _place(row["answer"]), "subject": subject, "topic": topic, "category": category}


def pairs(rows: list[Row], words: Words) -> list[Row]:
    """Minimal pairs: good, bad; or sentence_good, sentence_bad (BLiMP); or source_sentence, target_sentence (RuBLiMP); with
    phenomenon and paradigm. Pairs of one sentence twice say nothing and are left out."""
    names = next(n for n in (("good", "bad"), ("sentence_good", "sentence_bad"), ("source_sentence", "target_sentence"))
                 if n[0] in rows[0])
    found = [{**r, "good": r[names[0]], "bad": r[names[1]], "paradigm": r.get("paradigm") or r.get("UID") or r["part"]}
             for r in rows]
    for r in found:
        r["phenomenon"] = str(r.get("phenomenon") or r.get("linguistics_term") or r["paradigm"]).replace("_", " ")
    return _in_turn([r for r in found if r["good"] != r["bad"]], "paradigm")


def mkqa(rows: list[Row], words: Words) -> list[Row]:
    """queries and answers by language: question, golds (text and aliases), type. Unanswerable ones and long answers, which have no
    text, are left out; yes and no may be said in the language."""
    code, own = words["code"], {"yes": words["affirm"], "no": words["deny"]}
    out = []
    for r in rows:
        answers = [{**a, "type": MKQA_TYPES[a["type"]] if isinstance(a["type"], int) else a["type"]} for a in r["answers"][code]]
        short = [a for a in answers if a["type"] not in ("unanswerable", "long_answer") and a.get("text")]
        golds = [t for a in short for t in (a["text"], *(a.get("aliases") or ()), *_said(a, own))]
        if golds := _texts(golds):
            out.append({"id": str(r["example_id"]), "question": r["queries"][code], "golds": golds, "type": short[0]["type"]})
    return out


def _said(answer: Row, own: Mapping[str, str]) -> tuple[str, ...]:
    return (own[answer["text"].lower()],) if answer["type"] == "binary" and answer["text"].lower() in own else ()


def _unmarked(text: str) -> str:
    """Without the marks of WikiHow, by lm-eval's rules."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


def arc(rows: list[Row], words: Words) -> list[Row]:
    """instruction, option_a to option_e, answer (A to E), as Okapi has it; or question, choices (text, label), answerKey."""
    return [_okapi(r) if "instruction" in r else _arc(r) for r in rows]


def _okapi(row: Row) -> Row:
    options = [row[f"option_{c}"] for c in "abcde" if row.get(f"option_{c}")]
    return {**row, "question": _unmarked(row["instruction"]), "choices": [_unmarked(o) for o in options],
            "answer": _place(row["answer"])}


def _arc(row: Row) -> Row:
    choices = row["choices"] if isinstance(row["choices"], Mapping) else row["question"]["choices"]
    return {**row, "choices": list(choices["text"]), "answer": list(choices["label"]).index(row["answerKey"])}


def hellaswag(rows: list[Row], words: Words) -> list[Row]:
    """ctx_a, ctx_b, activity_label, endings, label: query and endings as lm-eval writes them."""
    return [{**r, "query": _unmarked(f"{r['activity_label']}: {r['ctx_a']} {r['ctx_b'].capitalize()}"),
             "endings": [_unmarked(e) for e in _list(r["endings"])], "answer": int(str(r["label"]).strip())} for r in rows]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"a list is needed, and this is {value!r:.40}")
    return value


def rucola(rows: list[Row], words: Words) -> list[Row]:
    """id, sentence, acceptable (on the hub also `label`): the same with label, and the domain by the file's name where it tells."""
    found = [{**r, "label": str(r["acceptable"] if "acceptable" in r else r["label"]),
              "domain": "out of domain" if str(r.get("part", "")).startswith("out_of_domain") else "in domain"} for r in rows]
    return _in_turn(found, "domain")


def afriqa(rows: list[Row], words: Words) -> list[Row]:
    """context, question_lang, answer_pivot ({text}), answer_lang: the answers in the passage's language and in the question's."""
    return [{**r, "golds": _texts([*_texts(r["answer_pivot"]), str(r.get("answer_lang") or "")])} for r in rows]


def jcommonsenseqa(rows: list[Row], words: Words) -> list[Row]:
    """question, choice0 to choice4, label: the same with choices."""
    return [{**r, "choices": [r[f"choice{i}"] for i in range(5)]} for r in rows]


def _sib200(*splits: str) -> Callable[[list[Row], Words], list[Row]]:
    def shape(rows: list[Row], words: Words) -> list[Row]:
        return _in_turn([r for r in rows if r.get("split", splits[0]) in splits], "category")

    shape.__doc__ = f"text, category and `split` ({' or '.join(splits)}; all rows without it), one topic after the other."
    return shape


SHAPES = {"belebele": belebele, "tydiqa": tydiqa, "squad": squad, "paws": paws, "mmlu": mmlu, "pairs": pairs, "mkqa": mkqa,
          "arc": arc, "hellaswag": hellaswag, "rucola": rucola, "afriqa": afriqa, "jcommonsenseqa": jcommonsenseqa,
          "sib200": _sib200("test"), "sib200_dev": _sib200("dev", "validation")}
