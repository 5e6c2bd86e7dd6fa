"""JSON bodies of requests and responses; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, FailFast, Field, model_validator


def _check_unicode(text: str) -> str:
    """JSON can spell one half of a surrogate pair, which is not text."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("a text contains an unpaired surrogate, one half of a character") from None
    return text


class _FirstWrong(FailFast):
    """Stop at the first wrong item of a list: a body may have a million, each a problem of its own."""

    def __hash__(self) -> int:  # of a part of a union
        return hash(self.fail_fast)


MOST_FIELDS = 100
T = TypeVar("T")
Text = Annotated[str, AfterValidator(_check_unicode)]
Many = Annotated[list[T], _FirstWrong()]
Count = Annotated[int, Field(ge=1, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
Dimensions = Annotated[
    int | None,
    Field(
        ge=1,
        le=1 << 16,
        description="Truncate each vector to this number of dimensions [default: as declared by the model, or all].",
    ),
]
Prompt = Annotated[Text | None, Field(description="Name of one of the model's prompts [default: its default prompt].")]
Side = Annotated[
    Literal["Left", "Right", "left", "right"], Field(description="End of an over-long text that is truncated.")
]
ModelName = Annotated[str | None, Field(description="Name of a model [default: the first of the task].")]
Truncate = Annotated[bool, Field(description="Truncate texts that are too long; if false, reject them with 422.")]


Windows = Annotated[
    bool,
    Field(description="Read long texts in overlapping windows and average the results, instead of truncating them."),
]


Explain = Annotated[
    bool | Literal["shapley", "occlusion"],
    Field(description="Contributions of words to the score; true is shapley."),
]


def _describe_nulls(schema: dict[str, Any]) -> None:
    """Say in the OpenAPI document that every field that may be left out may be null as well."""
    for name, described in schema.get("properties", {}).items():
        if name not in schema.get("required", ()) and {"type": "null"} not in described.get("anyOf", ()):
            notes = {key: described.pop(key) for key in ("title", "description", "default") if key in described}
            kinds = described.pop("anyOf") if set(described) == {"anyOf"} else [dict(described)]
            described.clear()
            described.update({"anyOf": [*kinds, {"type": "null"}], **notes})


def few_fields(value: Any) -> Any:
    """Refuse an object with very many fields, each of which could be a problem of its own."""
    if isinstance(value, dict) and len(value) > MOST_FIELDS:
        raise ValueError(f"has more than {MOST_FIELDS} fields")
    return value


class Schema(BaseModel):
    """What all schemas have in common: validators are built when they are first used."""

    model_config = ConfigDict(defer_build=True)


class Body(Schema):
    """A body in which null is as left out, and that rejects unknown fields, so that no misspelt option is missed."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_describe_nulls)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, value: Any) -> Any:
        value = few_fields(value)
        return {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value


class TextPair(Body):
    """Two texts that are classified together."""

    text: Text
    text_pair: Text


class QuestionInput(Body):
    """A question about a passage."""

    question: Text
    context: Text


class ChoiceInput(Body):
    """A beginning with its possible continuations, or a question with its possible answers."""

    prompt: Text
    choices: Annotated[Many[Text], Field(min_length=1)]


class TaskRequest(Body):
    """Fields of all requests."""

    model: ModelName = None
    truncate: Truncate = True


class ClassifyRequest(TaskRequest):
    """Texts or pairs to classify."""

    inputs: Text | TextPair | Many[Text] | Many[TextPair]
    top_k: Annotated[
        Count | None,
        Field(description="Number of labels per input; null for all, or those that exceed the model's own thresholds."),
    ] = None
    min_confidence: Annotated[
        Share | None, Field(description="Minimum probability of the best label; below it, the label is null.")
    ] = None
    answer_share: Annotated[
        Share | None,
        Field(
            description="Fraction of texts to answer, as measured on held-out examples; the label "
            "of less confident texts is null."
        ),
    ] = None
    conformal: Annotated[
        Share | None,
        Field(
            description="Answer with a set of labels that contains the correct one with this "
            "probability (conformal prediction)."
        ),
    ] = None
    explain: Explain = False
    labels: Annotated[
        Many[Text] | None,
        Field(min_length=1, max_length=100, description="Labels for zero-shot classification, for an NLI model."),
    ] = None
    template: Annotated[Text, Field(max_length=1000)] = "This example is {}."
    multi_label: bool = False
    windows: Windows = False


class TagRequest(TaskRequest):
    """Texts in which to find entities, of any length."""

    inputs: Text | Many[Text]
    aggregation: Literal["simple", "first", "average", "max"] = "first"
    explain: Explain = False


class AnswerRequest(TaskRequest):
    """Questions to answer from their contexts, which may have any length."""

    inputs: QuestionInput | Many[QuestionInput]
    top_k: Count = 1
    allow_empty: Annotated[bool, Field(description='Allow "no answer" as the result.')] = False
    explain: Explain = False


class FillMaskRequest(TaskRequest):
    """Texts with [MASK] in them."""

    inputs: Text | Many[Text]
    top_k: Count = 5
    targets: Annotated[Many[Text] | None, Field(min_length=1, max_length=100)] = None


class ChooseRequest(TaskRequest):
    """Prompts with their choices."""

    inputs: ChoiceInput | Many[ChoiceInput]


class EmbedRequest(TaskRequest):
    """Texts to embed."""

    inputs: Text | Many[Text]
    pooling: Annotated[
        Literal["declared", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"] | None,
        Field(description="[default: declared, as in the model's folder, or mean]"),
    ] = None
    normalize: bool = True
    prompt_name: Prompt = None
    dimensions: Dimensions = None
    truncation_direction: Side = "Right"
    windows: Windows = False


# ── responses ──


class Usage(Schema):
    """What was computed."""

    tokens: int
    truncated: Annotated[list[int], Field(description="Indices of the inputs that were truncated.")]


class Timing(Schema):
    """Time in the queue and in the engine, in milliseconds."""

    wait: float
    compute: float


class TaskResponse(Schema, Generic[T]):
    """One result per input, in order."""

    model: str
    results: list[T]
    usage: Usage
    milliseconds: Timing


class WordScore(Schema):
    """What a word, or a part of a long text, contributes to a score, and its position in characters."""

    word: str
    start: int
    end: int
    text_pair: Annotated[bool, Field(description="Whether it is of the second text.")] = False
    question: Annotated[bool, Field(description="Whether it is of the question.")] = False
    score: float


class Explained(Schema):
    """What a request with `explain` gets beside a score."""

    base: Annotated[float | None, Field(description="With `explain`: the score of a text without words.")] = None
    words: Annotated[list[WordScore] | None, Field(description="With `explain`.")] = None


class LabelScore(Explained):
    """A label and its probability, or the predicted number of a regression; the label null is no answer."""

    label: str | None
    score: float


class Entity(Explained):
    """An entity and its position in the text, in characters."""

    label: str
    text: str
    start: int
    end: int
    score: float


class AnswerSpan(Explained):
    """An answer and its position in the context, in characters."""

    answer: str
    start: int
    end: int
    score: float


class TokenScore(Schema):
    """A token for a mask, its probability, and the text with it."""

    token: str
    id: int
    score: float
    sequence: str


class ChoiceScore(Schema):
    """A choice and its probability."""

    choice: str
    index: int
    score: float


class ModelInfo(Schema):
    """A model of the service."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "pocketbert"
    task: str
    labels: list[str] | None
    max_tokens: int


class ModelList(Schema):
    """The models of the service, in the form of OpenAI's API."""

    object: Literal["list"] = "list"
    data: list[ModelInfo]


class ErrorBody(Schema):
    """Description of an error."""

    message: str
    type: str
    code: str
    param: str | None = None


class Error(Schema):
    """An error in the form of OpenAI's API."""

    error: ErrorBody
