"""The public names for type checkers, which do not see lazy loading; printed by scripts/public_names."""

from pocketbert.configs import PRESETS as PRESETS
from pocketbert.configs import AutoConfig as AutoConfig
from pocketbert.errors import CheckpointError as CheckpointError
from pocketbert.errors import ConfigError as ConfigError
from pocketbert.errors import DataError as DataError
from pocketbert.errors import InputError as InputError
from pocketbert.errors import MissingExtraError as MissingExtraError
from pocketbert.errors import PocketBertError as PocketBertError
from pocketbert.errors import TokenizerError as TokenizerError
from pocketbert.exporters.export import ExportResult as ExportResult
from pocketbert.exporters.export import export as export
from pocketbert.exporters.options import ExportOptions as ExportOptions
from pocketbert.families.bert import BertConfig as BertConfig
from pocketbert.families.config import PreTrainedConfig as PreTrainedConfig
from pocketbert.families.mobilebert import MobileBertConfig as MobileBertConfig
from pocketbert.families.squeezebert import SqueezeBertConfig as SqueezeBertConfig
from pocketbert.models.auto import AutoModel as AutoModel
from pocketbert.models.auto import AutoModelForMaskedLM as AutoModelForMaskedLM
from pocketbert.models.auto import AutoModelForMultipleChoice as AutoModelForMultipleChoice
from pocketbert.models.auto import AutoModelForNextSentencePrediction as AutoModelForNextSentencePrediction
from pocketbert.models.auto import AutoModelForPreTraining as AutoModelForPreTraining
from pocketbert.models.auto import AutoModelForQuestionAnswering as AutoModelForQuestionAnswering
from pocketbert.models.auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
from pocketbert.models.auto import AutoModelForTokenClassification as AutoModelForTokenClassification
from pocketbert.models.bert import BertForMaskedLM as BertForMaskedLM
from pocketbert.models.bert import BertForMultipleChoice as BertForMultipleChoice
from pocketbert.models.bert import BertForNextSentencePrediction as BertForNextSentencePrediction
from pocketbert.models.bert import BertForPreTraining as BertForPreTraining
from pocketbert.models.bert import BertForQuestionAnswering as BertForQuestionAnswering
from pocketbert.models.bert import BertForSequenceClassification as BertForSequenceClassification
from pocketbert.models.bert import BertForTokenClassification as BertForTokenClassification
from pocketbert.models.bert import BertModel as BertModel
from pocketbert.models.mobilebert import MobileBertForMaskedLM as MobileBertForMaskedLM
from pocketbert.models.mobilebert import MobileBertForMultipleChoice as MobileBertForMultipleChoice
from pocketbert.models.mobilebert import MobileBertForNextSentencePrediction as MobileBertForNextSentencePrediction
from pocketbert.models.mobilebert import MobileBertForPreTraining as MobileBertForPreTraining
from pocketbert.models.mobilebert import MobileBertForPreTrainingOutput as MobileBertForPreTrainingOutput
from pocketbert.models.mobilebert import MobileBertForQuestionAnswering as MobileBertForQuestionAnswering
from pocketbert.models.mobilebert import MobileBertForSequenceClassification as MobileBertForSequenceClassification
from pocketbert.models.mobilebert import MobileBertForTokenClassification as MobileBertForTokenClassification
from pocketbert.models.mobilebert import MobileBertModel as MobileBertModel
from pocketbert.models.squeezebert import SqueezeBertForMaskedLM as SqueezeBertForMaskedLM
from pocketbert.models.squeezebert import SqueezeBertForMultipleChoice as SqueezeBertForMultipleChoice
from pocketbert.models.squeezebert import SqueezeBertForPreTraining as SqueezeBertForPreTraining
from pocketbert.models.squeezebert import SqueezeBertForQuestionAnswering as SqueezeBertForQuestionAnswering
from pocketbert.models.squeezebert import SqueezeBertForSequenceClassification as SqueezeBertForSequenceClassification
from pocketbert.models.squeezebert import SqueezeBertForTokenClassification as SqueezeBertForTokenClassification
from pocketbert.models.squeezebert import SqueezeBertModel as SqueezeBertModel
from pocketbert.pipelines import pipeline as pipeline
from pocketbert.runtime.quantize_options import QuantizeOptions as QuantizeOptions
from pocketbert.runtime.quantized_folders import QuantizeResult as QuantizeResult
from pocketbert.runtime.quantized_folders import quantize as quantize
from pocketbert.tokenization import AutoTokenizer as AutoTokenizer
from pocketbert.tokenization import BatchEncoding as BatchEncoding
from pocketbert.tokenization import BertTokenizer as BertTokenizer
from pocketbert.tokenization import BertTokenizerFast as BertTokenizerFast
from pocketbert.tokenization import MobileBertTokenizer as MobileBertTokenizer
from pocketbert.tokenization import MobileBertTokenizerFast as MobileBertTokenizerFast
from pocketbert.tokenization import SqueezeBertTokenizer as SqueezeBertTokenizer
from pocketbert.tokenization import SqueezeBertTokenizerFast as SqueezeBertTokenizerFast

__version__: str
__all__: list[str]
_HOME: dict[str, str]

def _homes() -> dict[str, str]: ...
