"""What is given is looked at before anything is planned: a wrong file or model is the user's to mend, and costs no method."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from polygraft.errors import InputError
from polygraft.poc.config import Poc
from polygraft.poc.evaluation import Target
from polygraft.sources import Source

LEAST = 6  # items: with five, an exact paired test finds no difference, however large (2 * 0.5**5 > 0.05)
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
                "tekken.json")


def check_files(config: Poc, found: Target) -> None:
    """Raise InputError for an evaluation that can show nothing, for files that are not there, and, with the line, for pairs and
    examples that teach nothing."""
    from polygraft.tune import examples, translation

    if found.items < LEAST:
        raise InputError("too few items to show any difference, however large", where=config.eval, found=f"{found.items:,}",
                         expected=f"at least {LEAST}", fix="add some: the more items, the smaller the differences that show")
    for name in ("pairs", "data"):
        if (path := getattr(config, name)) is not None and not Path(path).expanduser().is_file():
            raise InputError("no such file", where=path, expected=f"the file of `{name}`", fix="check the path")
    if config.pairs is not None:
        path = Path(config.pairs).expanduser()
        translation.collect(config.lang, translation.table(path), None, False, path)
    if config.data is not None:
        examples.load(config.data, {}, lambda spec: Path(spec).expanduser())


def check_models(config: Poc, sources: Mapping[str, Source]) -> None:
    """Raise InputError for a model without a tokenizer, and for one that cannot have been made from the base."""
    for name in {"base", config.today}:
        if not any(n in sources[name].weights.extras for n in VOCABULARIES):
            raise InputError("the model has no tokenizer", where=config.models[name], expected="tokenizer.json beside the weights",
                             fix="get the whole folder from its source")
    base = _shape(sources["base"])
    for name, source in sources.items():
        if source.adapter is None and (found := _shape(source)) != base:
            raise InputError(f"{name.replace('_', ' ')}: not made from the base", where=config.models[name], found=found,
                             expected=f"{base}, as the base has", fix="name a model that was trained from the base")


def _shape(source: Source) -> str:
    """Architecture, layers and width in words: what no training changes."""
    c = source.weights.config
    layers, width = (next((c[k] for k in keys if k in c), "?") for keys in (
        ("num_hidden_layers", "n_layer"), ("hidden_size", "n_embd", "d_model")))
    return f"{c.get('model_type', '?')}, {layers} layers of {width}"
