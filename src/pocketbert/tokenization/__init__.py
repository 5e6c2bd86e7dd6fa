"""Tokenizers: text → ids, and back."""

from pocketbert.tokenization.auto import AutoTokenizer
from pocketbert.tokenization.encoding import BatchEncoding
from pocketbert.tokenization.subwords import (
    CamembertTokenizer,
    CamembertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    RobertaTokenizerFast,
    XLMRobertaTokenizer,
    XLMRobertaTokenizerFast,
)
from pocketbert.tokenization.tokenizers import (
    BertTokenizer,
    BertTokenizerFast,
    MobileBertTokenizer,
    MobileBertTokenizerFast,
    MPNetTokenizer,
    MPNetTokenizerFast,
    SqueezeBertTokenizer,
    SqueezeBertTokenizerFast,
)

__all__ = [
    "AutoTokenizer",
    "BatchEncoding",
    "BertTokenizer",
    "BertTokenizerFast",
    "CamembertTokenizer",
    "CamembertTokenizerFast",
    "MPNetTokenizer",
    "MPNetTokenizerFast",
    "MobileBertTokenizer",
    "MobileBertTokenizerFast",
    "PreTrainedTokenizerFast",
    "RobertaTokenizer",
    "RobertaTokenizerFast",
    "SqueezeBertTokenizer",
    "SqueezeBertTokenizerFast",
    "XLMRobertaTokenizer",
    "XLMRobertaTokenizerFast",
]
