"""Every sentence that the report itself speaks, in one place; another language is one more file beside this one.

A language's table has the keys of `EN`, with the same fields in braces. Under `= word` it may have words that steps write into
their results and that always mean the same: heads of columns, titles, units; under `cell word` the words of columns that hold
nothing else. Whatever else steps write stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping

from polygraft.report.strings_ja import JA

Strings = Mapping[str, str]

EN: dict[str, str] = {
    "report": "Report", "skip": "Skip to the answer", "foreign": "",
    "answer": "Answer", "maps": "Layer maps", "curves": "Curves", "steps": "What was done",
    "samples": "Samples", "cost": "Cost", "provenance": "Provenance", "caveats": "Caveats",
    "no_results": "No step has finished yet, so there is nothing to answer with.",
    "no_scores": "No step of this recipe measured a score. What its steps made and found:",
    "missing": "Not finished when this report was written: {steps}. Their numbers are absent, not zero.",
    "better": "better", "worse": "worse", "not distinguishable": "not distinguishable",
    "how_to_read": "A dot is the estimate, its line a 95 % interval: with other test items of the same kind, such lines hold the "
                   "true value 19 times out of 20. “Not distinguishable” means that the data cannot tell the difference from none; "
                   "it does not mean that there is none.",
    "heat": "Purple is above 0, green below; the stronger the colour, the farther from 0. Without colour: cannot be told from 0."
            " ▲ better, ▼ worse.",
    "maps_intro": "Layers run across, parts of a layer down; what lies outside the layers stands at the sides. Maps with equally "
                  "many layers share one axis, so the same layer is at the same place in all of them.",
    "samples_intro": "Chosen by a hash of their names, not by how the answers look. One row a prompt, one column a model.",
    "samples_more": "{shown} of {total} kept samples are shown, chosen by hash.",
    "prompt": "Prompt", "gold": "Reference answer", "empty": "(empty)",
    "rows_more": "The first {shown} of {total} rows. All of them: {where}.", "in_result": "the step’s result.json",
    "no_rows": "No rows.", "items_each": "n = {n} items each.",
    "text_more": "… {left} more characters", "maps_more": "{left} more maps are in the steps’ result.json files.",
    "step": "Step", "time": "Time", "memory": "Peak memory", "read": "Read", "written": "Written", "total": "Total",
    "inputs": "Inputs", "name": "Name", "spec": "Named as", "revision": "Revision", "identity": "Identity",
    "digest": "SHA-256 of the content", "full_digests": "Digests in full", "versions": "Versions", "recipe": "Recipe",
    "begun": "Begun", "finished": ", finished", "folder": "Folder",
    "see_answer": "What it found is in the answer above.",
    "no_caveats": "No step recorded a caveat.", "no_inputs": "No step recorded an input.",
    "layer": "layer", "at_layer": "layer {n}", "not_present": "not present", "cell_factor": "numbers in cells × 10",
    "thinned": "Drawn with {shown} of {total} points.",
    "undefined": "undefined", "interval": "{low} to {high}",
    "seconds": "{n} s", "minutes": "{n} min", "hours": "{n} h", "when": "{iso}",
}
FIXED_UNDER = frozenset({"verdict", "status", "priority", "holds", "about"})  # heads of columns that hold fixed words alone
LANGUAGES: dict[str, dict[str, str]] = {"en": EN, "ja": JA}


def spoken_language(language: str) -> str:
    """The language that a report asked for in `language` is written in: English where it has no text of its own."""
    return language if language in LANGUAGES else "en"


def strings(language: str = "en") -> dict[str, str]:
    """The report's own text; English where a language has none yet."""
    return EN | LANGUAGES.get(language, {})


def named(t: Strings, word: str) -> str:
    """A fixed word of a result in the report's language, or the word as it came."""
    return t.get(f"= {word}", word)


def fixed(t: Strings, head: str, cell: str) -> str:
    """A cell of a column of fixed words in the report's language; any other cell as it came."""
    return t.get(f"cell {cell}", cell) if head in FIXED_UNDER else cell


def name_of(t: Strings, tag: str) -> str:
    """A language's name in the report's language, "" where it is not known there."""
    return t.get(f"language {tag}", "")
