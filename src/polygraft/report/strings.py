"""Every sentence that the report itself speaks, in one place, so that another language is one more column."""

from __future__ import annotations

EN = {
    "report": "Report", "skip": "Skip to the answer",
    "question": "Question", "answer": "Answer", "maps": "Layer maps", "curves": "Curves", "steps": "What was done",
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
    "begun": "Begun", "finished": "finished", "folder": "Folder",
    "see_answer": "What it found is in the answer above.",
    "no_caveats": "No step recorded a caveat.", "no_inputs": "No step recorded an input.",
    "layer": "layer", "not_present": "not present", "cell_factor": "numbers in cells × 10",
    "thinned": "Drawn with {shown} of {total} points.",
}
LANGUAGES = {"en": EN}


def strings(language: str = "en") -> dict[str, str]:
    """The report's own text; English where a language has none yet."""
    return EN | LANGUAGES.get(language, {})
