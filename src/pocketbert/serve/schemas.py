"""What comes in and goes out as JSON under /v1; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _whole(text: str) -> str:
    """JSON can spell half a character (of a surrogate pair), which is no text."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half a character") from None
    return text


T = TypeVar("T")
Text = Annotated[str, AfterValidator(_whole)]
Count = Annotated[int, Field(ge=1, le=100)]
Model = Annotated[str | None, Field(description="The name of a model; without one, the first of the task.")]
Cut = Annotated[bool, Field(description="Cut what is too long for the model; if false, refuse it with 422.")]


class Body(BaseModel):
    """What is not known is refused, so that a misspelt option does not go unnoticed."""

    model_config = ConfigDict(extra="forbid")


class Pair(Body):
    """Two texts that are judged together."""

    text: Text
    text_pair: Text


class Question(Body):
    """A question on a passage."""

    question: Text
    context: Text


class Choice(Body):
    """A beginning and how it may go on, or a question and its answers."""

    prompt: Text
    choices: Annotated[list[Text], Field(min_length=1)]


class Asked(Body):
    """What all requests have in common."""

    model: Model = None
    truncate: Cut = True


class Classify(Asked):
    """Texts or pairs to label."""

    inputs: Text | Pair | list[Text] | list[Pair]
    top_k: Annotated[Count | None, Field(description="So many labels of each; all if null.")] = None
    labels: Annotated[
        list[Text] | None,
        Field(min_length=1, max_length=100, description="Labels of your own, for a model of language inference."),
    ] = None
    template: Annotated[Text, Field(max_length=1000)] = "This example is {}."
    multi_label: bool = False


class Tag(Asked):
    """Texts to find entities in."""

    inputs: Text | list[Text]
    aggregation: Literal["simple", "first", "average", "max"] = "first"


class Answer(Asked):
    """Questions to answer from their contexts, which may be of any length."""

    inputs: Question | list[Question]
    top_k: Count = 1
    allow_empty: Annotated[bool, Field(description='Let "no answer" compete.')] = False


class FillMask(Asked):
    """Texts with [MASK] in them."""

    inputs: Text | list[Text]
    top_k: Count = 5
    targets: Annotated[list[Text] | None, Field(min_length=1, max_length=100)] = None


class Choose(Asked):
    """What to choose from."""

    inputs: Choice | list[Choice]


class Embed(Asked):
    """Texts to turn into vectors."""

    inputs: Text | list[Text]
    pooling: Annotated[
        Literal["mean", "cls"] | None, Field(description="If null, as the model was trained: usually the mean.")
    ] = None
    normalize: bool = True


# ── answers ──


class Usage(BaseModel):
    """What was read."""

    tokens: int
    truncated: Annotated[list[int], Field(description="The inputs whose end was not read.")]


class Timing(BaseModel):
    """Where the time went, in milliseconds."""

    wait: float
    compute: float


class Answers(BaseModel, Generic[T]):
    """One result an input, in order."""

    model: str
    results: list[T]
    usage: Usage
    milliseconds: Timing


class Label(BaseModel):
    """A label and its probability; of a regression, the number."""

    label: str
    score: float


class Entity(BaseModel):
    """An entity and its place in the text, in characters."""

    label: str
    text: str
    start: int
    end: int
    score: float


class Found(BaseModel):
    """An answer and its place in the context, in characters."""

    answer: str
    start: int
    end: int
    score: float


class Fill(BaseModel):
    """A word for a gap."""

    token: str
    id: int
    score: float
    sequence: str


class Chosen(BaseModel):
    """A choice and its share of the probability."""

    choice: str
    index: int
    score: float


class Served(BaseModel):
    """A model of the service."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "pocketbert"
    task: str
    labels: list[str] | None
    max_tokens: int


class ServedList(BaseModel):
    """The models of the service, as OpenAI lists them."""

    object: Literal["list"] = "list"
    data: list[Served]


class ErrorBody(BaseModel):
    """What was wrong."""

    message: str
    type: str
    code: str
    param: str | None = None


class Error(BaseModel):
    """An error as OpenAI's clients read it."""

    error: ErrorBody


# ── OpenAI ──


class OpenAIEmbed(BaseModel):
    """As OpenAI's clients send it."""

    input: Annotated[Text | list[Text], Field(description="Texts; lists of tokens are those of other models.")]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: None = None
    user: str | None = None


# ── text-embeddings-inference ──


class TeiEmbed(BaseModel):
    """A body of /embed."""

    inputs: Text | list[Text]
    normalize: bool = True
    truncate: bool | None = None
    model: Model = None


class TeiPredict(BaseModel):
    """A body of /predict: a text, a pair, or a list of lists of one or two texts."""

    inputs: Text | Annotated[list[Text], Field(min_length=2, max_length=2)] | list[
        Annotated[list[Text], Field(min_length=1, max_length=2)]
    ]  # fmt: skip
    raw_scores: bool = False
    truncate: bool | None = None
    model: Model = None


class TeiTokenize(BaseModel):
    """A body of /tokenize."""

    inputs: Text | list[Text]
    add_special_tokens: bool = True
    model: Model = None


class TeiToken(BaseModel):
    """A token and its place in the text, in characters."""

    id: int
    text: str
    special: bool
    start: int
    stop: int


# ── the hub ──


class HubParameters(Body):
    """The parameters of all tasks that hub clients send; each task takes its own."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    candidate_labels: Annotated[list[Text] | None, Field(min_length=1, max_length=100)] = None
    hypothesis_template: Annotated[Text | None, Field(max_length=1000)] = None
    multi_label: bool | None = None
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    ignore_labels: list[Text] | None = None
    handle_impossible_answer: bool | None = None
    max_answer_len: Annotated[int | None, Field(ge=1, le=512)] = None
    targets: Annotated[list[Text] | None, Field(min_length=1, max_length=100)] = None
    normalize: bool | None = None


class HubAsked(BaseModel):
    """A body of /models/NAME: the inputs of the model's task."""

    inputs: Text | Pair | Question | Choice | list[Text] | list[Pair] | list[Question] | list[Choice]
    parameters: HubParameters = HubParameters()
    normalize: bool | None = None
    options: dict[str, bool] | None = None
