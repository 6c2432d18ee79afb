"""Made-up rows in the layouts that the hub's data sets have, for the shipped tasks of understanding: (examples, asked)."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def belebele(n: int) -> Row:
    return {"link": f"l{n}", "question_number": n, "flores_passage": f"  Ein Satz {n}. Noch einer.", "question": f" Wer {n}? ",
            "mc_answer1": "eins", "mc_answer2": f"zwei {n}", "mc_answer3": "drei", "mc_answer4": "vier", "correct_answer_num": str(n % 4 + 1),
            "dialect": "x", "ds": "2023"}


def xnli(n: int) -> Row:
    return {"premise": f"Satz {n}.", "hypothesis": f"Noch {n}!", "label": n % 3}


def squad(n: int) -> Row:
    return {"id": f"swahili-{n}", "title": "T", "context": f"Text {n}: Berlin.", "question": f"Wo {n}?",
            "answers": {"text": [f"Berlin {n}", "berlin"], "answer_start": [3, 3]}}


def xcopa(n: int) -> Row:
    return {"premise": f"Kifaa {n} kilikuwa. ", "choice1": f"Kikuwa {n}.", "choice2": f"Ékilikuwa {n}.", "label": n % 2, "idx": n,
            "question": ("cause", "effect")[n // 2 % 2], "changed": False}


def pawsx(n: int) -> Row:
    return {"id": n, "sentence1": f"He did n't go ( {n} ) , she ' s \" here \" .", "sentence2": "She ' s here , he is n't .", "label": n % 2}


def mmlu(n: int) -> Row:
    subject = ("anatomy", "high_school_us_history")[n % 2]
    return {"question": f" What {n}? ", "subject": subject, "choices": ["a", f"b{n}", "c", "d"], "answer": n % 4}


def global_mmlu(n: int) -> Row:
    return {"sample_id": f"anatomy/test/{n}", "subject": "anatomy", "subject_category": "Medical", "question": f" Nini {n}? ", "option_a": "a",
            "option_b": f"b{n}", "option_c": "c", "option_d": "d", "answer": "ABCD"[n % 4], "is_annotated": False}


def cmmlu(n: int) -> Row:
    return {"Question": f" 什么{n}？ ", "A": "甲", "B": f"乙{n}", "C": "丙", "D": "丁", "Answer": "ABCD"[n % 4]}


def m_arc(n: int) -> Row:
    return {"id": f"ARC/{n}", "instruction": f" Was [title] ist  {n} [edit]?", "option_a": f"a {n} ", "option_b": "b [x]c", "option_c": "c",
            "option_d": "d", "option_e": None, "answer": "ABCD"[n % 4]}


def arc(n: int) -> Row:
    return {"id": f"Mercury_{n}", "question": f"Which {n}?", "choices": {"text": ["w", f"x{n}", "y"], "label": ["1", "2", "3"]},
            "answerKey": str(n % 3 + 1)}


def hellaswag(n: int) -> Row:
    return {"ind": n, "activity_label": "Making tea", "ctx_a": f"[header] How to {n} [title] Boil.", "ctx_b": "then THEY", "ctx": "",
            "endings": [f"pour {n}  it.", "[step] leave.", "go.", "sit."], "source_id": f"s{n}", "split": "val", "split_type": "x",
            "label": str(n % 4)}


def blimp(n: int) -> Row:
    return {"sentence_good": f"She {n} sleeps.", "sentence_bad": f"She {n} sleep.", "field": "syntax", "linguistics_term": "island_effects",
            "UID": "adjunct_island", "pairID": str(n)}


def rublimp(n: int) -> Row:
    return {"id": n, "source_sentence": f"Она {n} спит.", "target_sentence": f"Она {n} спишь.", "phenomenon": "Anaphor Agreement",
            "PID": "x", "subtype": "y"}


def rucola(n: int) -> Row:
    return {"id": n, "sentence": f"Фраза {n}.", "label": n % 2, "error_type": "0", "detailed_source": "Paducheva2004"}


def sib200(n: int) -> Row:
    return {"index_id": n, "category": ("geography", "science/technology")[n % 2], "text": f"Uturuki {n} 'x'."}


def jcommonsenseqa(n: int) -> Row:
    return {"q_id": n, "question": f"何{n}？", **{f"choice{i}": f"選択{i}{n}" for i in range(5)}, "label": n % 5}


def jnli(n: int) -> Row:
    return {"sentence_pair_id": str(n), "yjcaptions_id": "1", "sentence1": f"文{n}。", "sentence2": "別の文。", "label": n % 3}


def jsquad(n: int) -> Row:
    return {"id": f"a{n}", "title": "梅雨", "context": f"梅雨 [SEP] 梅雨は{n}季の一種。 ", "question": f"何季{n}？",
            "answers": {"text": [f"{n}季", "季"], "answer_start": [3, 4]}, "is_impossible": False}


def afriqa(n: int) -> Row:
    return {"id": str(n), "title": "M", "context": f"He {n} was elected for Webuye.", "question_lang": f"Wapi {n}?",
            "question_translated": "Where?", "answer_pivot": {"answer_start": [1], "text": [f"Webuye {n}"]}, "answer_lang": f"Webuye {n}"}


def afrisenti(n: int) -> Row:
    return {"ID": n, "tweet": f"  Nimepata {n} \"x\"", "label": ("positive", "negative", "neutral")[n % 3]}


def mkqa(n: int) -> Row:
    answers = [[{"type": 0, "entity": "Q1", "text": "Dave Edmunds", "aliases": ["Edmunds", "Edmunds, Dave"]}],
               [{"type": 7, "entity": "", "text": "yes", "aliases": []}],
               [{"type": 2, "entity": "", "text": "", "aliases": []}], [{"type": 1, "entity": "", "text": None, "aliases": []}]][n % 4]
    return {"example_id": n, "query": "q", "queries": {"de": f"Wer {n}?", "en": f"Who {n}?"}, "answers": {"de": answers, "en": answers}}
