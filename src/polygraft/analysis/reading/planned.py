"""What reading the corpora of a config would cost, from headers and file sizes, and what must be said of what was read."""

from __future__ import annotations

from itertools import islice

from polygraft.activity import Activity
from polygraft.analysis.reading.config import Texts, Wanted, check, reading_at
from polygraft.analysis.reading.shapes import nbytes, points, shapes
from polygraft.anatomy import Anatomy
from polygraft.blocks import LIMIT, block_bytes, fits
from polygraft.checkpoint import Weights
from polygraft.data import Corpus, open_corpus
from polygraft.errors import UserError
from polygraft.meter import LIBRARIES
from polygraft.step import Context, Plan
from polygraft.windows import check_even, check_window

BYTES_A_TOKEN = 3  # of text, between 4 (English) and 1.5 (scripts that the tokenizer does not know)
FLOPS = 3e10  # multiplications and additions a second: two cores
COUNTED = 16 << 20  # bytes of parallel texts whose documents a plan counts
FEW = 500  # tokens of a language under which its figures are mostly chance (ours: three paragraphs)


def planned(config: Texts, wanted: Wanted, context: Context, what: str) -> Plan:
    """Memory, disk, time and every reason why the reading would fail; `what` is the plan's first line."""
    source = context.model(config.model)
    weights = source.weights
    anatomy = Anatomy.of(weights.config, weights.tensors, where=config.model)
    points(wanted)
    if config.activity is not None:
        return Plan((what, f"from the reading `{config.activity}`"), problems=_unfit(config, wanted, context))
    corpora, problems = corpora_of(config, context)
    problems += _looked(config, corpora, anatomy)
    model = sum(t.nbytes for t in weights.tensors.values())
    kept = nbytes(shapes(anatomy, wanted))
    tokens = expected_tokens(config, corpora)
    parameters = sum(t.numel for t in weights.tensors.values())
    read = f"{len(config.corpus)} language{'s' * (len(config.corpus) != 1)}, about {tokens:,} tokens each"
    lines: tuple[str, ...] = (what, f"{read}; {anatomy.layers} layers")
    n, states, passes = len(corpora), 0, 1
    resident = 2 * model
    if by_blocks(config, weights):  # every language goes through all layers, which are read again for it
        states, passes = 4 * tokens * anatomy.sizes.hidden, max(1, n)
        resident = 2 * block_bytes(weights, anatomy) + min(states, LIMIT)
        lines += ("one layer in memory at a time, read again for every language",)
    resident += LIBRARIES + 2 * kept + 8 * tokens * max(1, n)
    return Plan(lines, peak_bytes=resident, disk_bytes=kept * (n + 1) + max(0, states - LIMIT),
                read_bytes=passes * model + sum(c.path.stat().st_size for c in corpora), problems=tuple(problems),
                seconds=2 * parameters * tokens * n / FLOPS)  # fmt: skip


def _unfit(config: Texts, wanted: Wanted, context: Context) -> tuple[UserError, ...]:
    """Why a reading that is there already cannot be used; nothing of one that an earlier step has yet to make."""
    try:
        path = context.folder(config.activity or "")
    except UserError:  # the planner tells it
        return ()
    try:
        check(reading_at(path), config, wanted, context)
    except UserError as e:
        return (e,)
    return ()


def _looked(config: Texts, corpora: list[Corpus], anatomy: Anatomy) -> list[UserError]:
    """What a small look at the texts and at the model's config shows to be wrong."""
    wrong = list[UserError]()
    counted = config.parallel and sum(c.path.stat().st_size for c in corpora) <= COUNTED
    counts = dict[str, tuple[int, str]]()
    for corpus in corpora:
        documents = corpus.documents(aligned=config.parallel)
        try:
            counts[corpus.language] = sum(1 for _ in (documents if counted else islice(documents, 1))), str(corpus.path)
        except UserError as e:
            wrong.append(e)
    try:
        if counted and len(counts) == len(config.corpus):
            check_even(counts)
    except UserError as e:
        wrong.append(e)
    try:
        check_window(anatomy, config.window or 0)
    except UserError as e:
        wrong.append(e)
    return wrong


def by_blocks(config: Texts, weights: Weights) -> bool:
    """Whether the model is read one layer at a time, as far as headers tell: what an accelerator holds is seen when it runs."""
    if config.blocks == "auto":
        return config.device in ("auto", "cpu") and not fits(weights, "float32" if config.dtype == "auto" else config.dtype)
    return config.blocks == "yes"


def corpora_of(config: Texts, context: Context) -> tuple[list[Corpus], list[str | UserError]]:
    """The corpora that can be opened, and what is wrong with the others."""
    found, wrong = list[Corpus](), list[str | UserError]()
    for language, path in config.corpus.items():
        try:
            found.append(open_corpus(language, context.data(path), config.field))
        except UserError as e:
            wrong.append(e)
    return found, wrong


def expected_tokens(config: Texts, corpora: list[Corpus]) -> int:
    """Tokens of each language, guessed from the smallest file."""
    least = min((c.path.stat().st_size // BYTES_A_TOKEN for c in corpora), default=0)
    return min(least, config.tokens) if config.tokens else least


def said(config: Texts, found: Activity) -> tuple[str, ...]:
    """Sentences about the text that every analysis of it should repeat: budgets that were not met, texts not parallel."""
    tokens = {g: found.tokens(g) for g in found.languages}
    notes = []
    if (fewest := min(tokens.values(), default=FEW)) < FEW:
        notes.append(f"Only {fewest:,} token{'s' * (fewest != 1)} of a language {'were' if fewest != 1 else 'was'} read: "
                     f"under {FEW:,}, what is found is mostly chance and the subject of the text.")
    if config.tokens and not found.parallel and (least := min(tokens.values(), default=0)) < config.tokens:
        notes.append(f"{config.tokens:,} tokens a language were asked for; {least:,} were read of each, since one has no more.")
    if found.parallel and len(set(tokens.values())) > 1:
        notes.append("The texts are parallel: the same documents in every language, in as many tokens as each takes.")
    if len(tokens) > 1 and not found.parallel:
        notes.append("The texts are not parallel: languages may differ in what they are about, not only in how it is said.")
    return tuple(notes)
