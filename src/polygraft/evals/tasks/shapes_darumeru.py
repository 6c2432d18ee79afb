"""Shapes of Darumeru's datasets: messages with places for inputs, pairs in both orders, exams by variant, MMLU by category.

Layouts as the public evaluation code reads them (github.com/RefalMachine/llmtf_open, llmtf/tasks; hub RefalMachine/darumeru,
dichspace/daru_treeway_eval): `messages` is a list of {role, content} whose content holds `{name}` for each of `inputs`; `outputs`
is the answer; `meta` tells them apart. In the worked examples (split `prompt`) the last message is the answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]
PLACE = re.compile(r"\{(\w+)\}")
BOT = ("assistant", "bot")

CATEGORIES = {
    0: "abstract_algebra astronomy college_biology college_chemistry college_computer_science college_mathematics college_physics "
       "computer_security conceptual_physics electrical_engineering elementary_mathematics high_school_biology "
       "high_school_chemistry high_school_computer_science high_school_mathematics high_school_physics high_school_statistics "
       "machine_learning",
    1: "formal_logic high_school_european_history high_school_us_history high_school_world_history international_law jurisprudence "
       "logical_fallacies moral_disputes moral_scenarios philosophy prehistory professional_law world_religions",
    2: "econometrics high_school_geography high_school_government_and_politics high_school_macroeconomics "
       "high_school_microeconomics high_school_psychology human_sexuality professional_psychology public_relations "
       "security_studies sociology us_foreign_policy",
    3: "anatomy business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing medical_genetics "
       "miscellaneous nutrition professional_accounting professional_medicine virology",
}  # STEM, humanities, social sciences, other: Hendrycks et al. 2021
CATEGORY = {subject: number for number, subjects in CATEGORIES.items() for subject in subjects.split()}


def messages(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """`messages` (role, content), `inputs`, `outputs`, `meta`: one row with prompt, answer (or answers), and what `meta` says."""
    return [_told(row) for row in rows]


def _told(row: Row) -> Row:
    inputs = row["inputs"] if isinstance(row["inputs"], Mapping) else {"text": row["inputs"]}
    said = [(m["role"], PLACE.sub(lambda p: str(inputs.get(p[1], p[0])), m["content"])) for m in row["messages"]]
    outputs = row.get("outputs")
    answers = [str(o["segment"] if isinstance(o, Mapping) else o) for o in (outputs if isinstance(outputs, list) else [outputs])]
    answer = answers[0]
    if said[-1][0] in BOT and outputs not in (None, "") and said[-1][1].rstrip().endswith(answer):
        said[-1] = (said[-1][0], said[-1][1].rstrip().removesuffix(answer))  # a worked example brings its answer with it
    prompt = "\n".join(content.strip() for _, content in said if content.strip())
    return {**(row.get("meta") or {}), "prompt": prompt, "answer": answer, "answers": answers,
            "text": str(inputs.get("text", "")), "inputs": dict(inputs)}


def both_orders(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """`messages` with `choice1` and `choice2` among the inputs and `outputs` 1 or 2: each pair as it is, and turned round."""
    out = []
    for row in rows:
        inputs = row["inputs"]
        turned = {**row, "inputs": {**inputs, "choice1": inputs["choice2"], "choice2": inputs["choice1"]},
                  "outputs": {"1": "2", "2": "1"}[str(row["outputs"])]}
        pair = str(row["meta"]["id"])
        out += [{**_told(row), "pair": pair, "order": "as given"}, {**_told(turned), "pair": pair, "order": "turned round"}]
    return out


def exam(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """`messages` whose meta has id_task, variant and type: one row a part of the exam, with how many its variant has."""
    found = [_told(row) for row in rows]
    parts = Counter(str(r["variant"]) for r in found)
    return [{**r, "id_task": str(r["id_task"]), "type": str(r["type"]), "in_variant": parts[str(r["variant"])]} for r in found]


def mmlu_ru(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """NLPCoreTeam/mmlu_ru: question_<language>, choices_<language>, answer (0 to 3) and subject; with its category of four."""
    tag = words["language"]
    counts = Counter(r["subject"] for r in rows)
    return [{"subject": r["subject"], "topic": r["subject"].replace("_", " "), "question": r[f"question_{tag}"],
             "options": list(r[f"choices_{tag}"]), "answer": int(r["answer"]), "category": CATEGORY[r["subject"]],
             "in_subject": counts[r["subject"]]} for r in rows]


def summaries(rows: list[Row], words: Mapping[str, Any]) -> list[Row]:
    """`src_sents`, `summary_sents` and `extractive_summary` (places of the important sentences): one row a document."""
    out = []
    for n, row in enumerate(rows):
        sentences = [str(s).strip() for s in row["src_sents"]]
        relevant = sorted({int(i) for i in row["extractive_summary"]})
        if relevant and not 0 <= relevant[0] <= relevant[-1] < len(sentences):
            raise ValueError(f"row {n + 1}: extractive_summary names a sentence that is not there")
        out.append({"text": " ".join(sentences), "sentences": sentences, "summary": " ".join(map(str, row["summary_sents"])),
                    "relevant": relevant, "first": relevant[0] if relevant else 0})
    return out


SHAPES = {"darumeru": messages, "both_orders": both_orders, "exam": exam, "mmlu_ru": mmlu_ru, "summaries": summaries}
