"""What `polygraft steer` takes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from polygraft.analysis.reading.config import Texts
from polygraft.analysis.steering import ways
from polygraft.errors import RecipeError
from polygraft.step import DataRef, FolderRef, Language, SelectRef

TRIED = ("zero", "mean", "p90", "add=1", "diff=1", "residual-diff=1", "layer-off")  # what a verdict tries when no way is named


def _way(word: str) -> str:
    try:
        return ways.parse(word).word
    except RecipeError as e:
        raise ValueError("; ".join(filter(None, (e.what, f"found {e.found}", e.fix)))) from None


Way = Annotated[str, AfterValidator(_way)]


class Steer(Texts):
    """Run a model with some of its neurons, or its residual stream, edited: answers, tasks, effects on languages, a verdict."""

    select: tuple[SelectRef, ...] = Field((), description="neurons to edit: FILE:NAME of a selection file, its folder or step "
                                          "(--matrix: FILE alone takes every language in it)")
    way: tuple[Way, ...] = Field((), description=f"{', '.join(ways.WAYS)}; several are compared (default: mean; with --matrix "
                                 f"zero; with --verdict {', '.join(TRIED)})")
    language: Language | None = Field(None, description="whose statistics are written (default: the name of the selection)")
    deactivate: tuple[SelectRef, ...] = Field((), description="other neurons to silence at the same time, such as FILE:en")
    deactivate_way: Way = Field("zero", description="how these are silenced")
    positions: Literal["all", "prompt", "generated"] = Field("all", description="tokens at which the model is edited")
    layers: tuple[int, ...] = Field((), description="layers for residual-diff, project, keep and layer-off (default: as each says)")
    subspace: FolderRef | None = Field(None, description="an `analyze subspace` folder, for project and keep")
    prompts: DataRef | None = Field(None, description="prompts to answer with and without: one a line, or .jsonl with `prompt`")
    max_tokens: int = Field(64, ge=1, description="new tokens of an answer")
    chat: bool = Field(False, description="ask through the model's chat template")
    tasks: tuple[str, ...] = Field((), description="tasks to score with and without, as in `polygraft eval`")
    langs: tuple[Language, ...] = Field((), description="languages of the tasks (default: the selection's, and en)")
    data: DataRef | None = Field(None, description="folder with the tasks' files (default: the hub)")
    limit: int | None = Field(None, ge=1, description="ask only the first N items of each task")
    shots: int | None = Field(None, ge=0, description="worked examples before each item (default: as each task says)")
    read: dict[Language, DataRef] = Field(
        default_factory=dict, description="text whose nats are compared, other than what the neurons were found on",
        json_schema_extra={"metavar": "LANG=PATH"},
    )
    documents: int = Field(100, ge=2, description="read so many documents of each text, from its beginning")
    matrix: bool = Field(False, description="edit each language's neurons in turn and read every language: the effect matrix")
    verdict: bool = Field(False, description="answer whether editing helps: several ways, random controls, side effects")
    about: str = Field("", description="what the verdict is about: a column such as `belebele sw accuracy` or `nats sw` "
                       "(default: the first task in the target language, else its nats)")
    controls: int = Field(3, ge=0, le=100, description="random edits of equal size beside each; a verdict needs 3")
    backend: Literal["hf", "vllm"] = Field("hf", description="what runs the model; vllm is refused, and says why")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.corpus and self.activity is not None:
            raise ValueError("give either corpora (corpus: {sw: PATH, ...}) or a reading made before (activity: FOLDER)")
        return self

    @property
    def tried(self) -> tuple[ways.Way, ...]:
        words = self.way or (TRIED if self.verdict else ("zero",) if self.matrix else ("mean",))
        return tuple(ways.parse(word) for word in dict.fromkeys(words))
