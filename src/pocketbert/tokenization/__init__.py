"""Tokenizers: text → ids, and back."""

from pocketbert.tokenization.auto import AutoTokenizer
from pocketbert.tokenization.encoding import BatchEncoding
from pocketbert.tokenization.tokenizers import (
    BertTokenizer,
    BertTokenizerFast,
    MobileBertTokenizer,
    MobileBertTokenizerFast,
    SqueezeBertTokenizer,
    SqueezeBertTokenizerFast,
)

__all__ = [
    "AutoTokenizer",
    "BatchEncoding",
    "BertTokenizer",
    "BertTokenizerFast",
    "MobileBertTokenizer",
    "MobileBertTokenizerFast",
    "SqueezeBertTokenizer",
    "SqueezeBertTokenizerFast",
]
