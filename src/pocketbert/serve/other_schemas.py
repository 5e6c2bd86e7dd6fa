"""JSON bodies of other services' routes: OpenAI's, vLLM's, Jina's, Cohere's, text-embeddings-inference's, the hub's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from pocketbert.serve.schemas import (
    Body,
    ChoiceInput,
    ClassifyRequest,
    Count,
    Dimensions,
    Many,
    ModelName,
    Prompt,
    QuestionInput,
    Schema,
    Side,
    Text,
    TextPair,
    Windows,
    few_fields,
)

TokenId = Annotated[int, Field(ge=0, le=(1 << 31) - 1)]
Ids = Annotated[Many[TokenId], Field(min_length=1)]
#: Texts to embed, or the ids of their tokens.
Inputs = Text | Ids | Many[Text] | Many[Ids]


# ── OpenAI, vLLM ──


class OpenAIEmbeddingsRequest(Body):
    """A body of /v1/embeddings."""

    input: Annotated[Inputs, Field(description="Texts, or lists of the ids of their tokens in the model's vocabulary.")]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Dimensions = None
    user: str | None = None
    windows: Windows = False


class VllmClassifyRequest(Body):
    """A body of /classify, as vLLM's clients send it."""

    input: Text | Many[Text]
    model: ModelName = None
    user: str | None = None
    windows: Windows = False


def _form(body: Any) -> str:
    if isinstance(body, dict):
        return "vllm" if body.get("input") is not None else "ours"
    return "vllm" if isinstance(body, VllmClassifyRequest) else "ours"


#: A body of /v1/classify: ours with `inputs`, or vLLM's with `input`.
AnyClassifyRequest = Annotated[
    Annotated[ClassifyRequest, Tag("ours")] | Annotated[VllmClassifyRequest, Tag("vllm")], Discriminator(_form)
]


class VllmClass(Schema):
    """The classification of one text."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class TokenUsage(Schema):
    """Number of tokens that were read."""

    prompt_tokens: int
    total_tokens: int


class VllmClassifyResponse(Schema):
    """The classifications of all texts."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[VllmClass]
    usage: TokenUsage


# ── Jina, Cohere ──


class Document(Body):
    """A passage."""

    text: Text


class RerankRequest(Body):
    """A body of /v1/rerank, in the forms that Jina and Cohere have in common."""

    query: Text
    documents: Annotated[Many[Text | Document], Field(min_length=1)]
    model: ModelName = None
    top_n: Annotated[int | None, Field(ge=1, description="Number of results, the best first [default: all].")] = None
    return_documents: bool = False
    truncation: Annotated[bool, Field(description="If false, reject passages that are too long with 422.")] = True
    windows: Windows = False


class RerankResult(Schema):
    """A passage's place among the documents, and how well it answers the query, from 0 to 1."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankResponse(Schema):
    """Passages, the best first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: TokenUsage


# ── text-embeddings-inference ──


class TeiRequest(Body):
    """Fields of several bodies."""

    truncate: bool = True
    truncation_direction: Side = "Right"
    model: ModelName = None


class TeiEmbedRequest(TeiRequest):
    """A body of /embed."""

    inputs: Inputs
    normalize: bool = True
    prompt_name: Prompt = None
    dimensions: Dimensions = None
    windows: Windows = False


class TeiEmbedAllRequest(TeiRequest):
    """A body of /embed_all."""

    inputs: Inputs
    prompt_name: Prompt = None


class TeiPredictRequest(TeiRequest):
    """A body of /predict: a text, a pair, or a list of lists of one or two texts."""

    inputs: Text | Annotated[Many[Text], Field(min_length=2, max_length=2)] | Many[
        Annotated[Many[Text], Field(min_length=1, max_length=2)]
    ]  # fmt: skip
    raw_scores: bool = False
    windows: Windows = False


class TeiRerankRequest(TeiRequest):
    """A body of /rerank."""

    query: Text
    texts: Annotated[Many[Text], Field(min_length=1)]
    raw_scores: bool = False
    return_text: bool = False
    windows: Windows = False


class TeiRank(Schema):
    """A text's place in the request, and how well it answers the query."""

    index: int
    score: float
    text: str | None = None


class SimilarityInput(Body):
    """A text, and those that it is compared with."""

    source_sentence: Text
    sentences: Annotated[Many[Text], Field(min_length=1)]


class SimilarityParameters(Body):
    """Options of /similarity."""

    truncate: bool = True
    truncation_direction: Side = "Right"
    prompt_name: Prompt = None
    windows: Windows = False


class TeiSimilarityRequest(Body):
    """A body of /similarity."""

    inputs: SimilarityInput
    parameters: SimilarityParameters = SimilarityParameters()
    model: ModelName = None


class TeiTokenizeRequest(Body):
    """A body of /tokenize."""

    inputs: Text | Many[Text]
    add_special_tokens: bool = True
    prompt_name: Prompt = None
    model: ModelName = None


class TeiToken(Schema):
    """A token and its position in the text, in characters."""

    id: int
    text: str
    special: bool
    start: int
    stop: int


class TeiDecodeRequest(Body):
    """A body of /decode."""

    ids: Ids | Many[Ids]
    skip_special_tokens: bool = True
    model: ModelName = None


# ── the hub ──


Length = Annotated[int | None, Field(ge=1, le=512, description="Number of tokens.")]


class HubParameters(Body):
    """The parameters of all tasks that hub clients send; each task has its own."""

    top_k: Count | None = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    candidate_labels: Annotated[Many[Text] | None, Field(min_length=1, max_length=100)] = None
    hypothesis_template: Annotated[Text | None, Field(max_length=1000)] = None
    multi_label: bool | None = None
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] | None = None
    ignore_labels: Many[Text] | None = None
    stride: Annotated[int | None, Field(ge=0, description="Tokens that two windows of a long text share.")] = None
    handle_impossible_answer: bool | None = None
    max_answer_len: Length = None
    max_seq_len: Length = None
    max_question_len: Length = None
    doc_stride: Annotated[
        int | None, Field(ge=1, le=512, description="Tokens from the start of a window to that of the next.")
    ] = None
    align_to_words: bool | None = None
    targets: Annotated[Many[Text] | None, Field(min_length=1, max_length=100)] = None
    normalize: bool | None = None
    prompt_name: Prompt = None
    truncate: bool | None = None
    truncation_direction: Side | None = None
    windows: bool | None = None


class HubRequest(Body):
    """A body of /models/NAME: inputs of the model's task."""

    inputs: (
        Text | TextPair | QuestionInput | ChoiceInput | SimilarityInput
        | Many[Text] | Many[TextPair] | Many[QuestionInput] | Many[ChoiceInput]
    )  # fmt: skip
    parameters: HubParameters = HubParameters()
    normalize: bool | None = None
    prompt_name: Prompt = None
    truncate: bool | None = None
    truncation_direction: Side | None = None
    options: Annotated[dict[str, bool], BeforeValidator(few_fields)] | None = None
