"""MobileBERT under its published TensorFlow names, for Keras 3; SqueezeBERT beside it. Needs the extra `tf`."""

from pocketbert.errors import MissingExtraError, require

require("tf")

import keras  # noqa: E402

if keras.backend.backend() != "tensorflow":
    raise MissingExtraError(
        f"Keras runs on {keras.backend.backend()} here: set the environment variable KERAS_BACKEND=tensorflow"
    )

from pocketbert.tf.mobilebert import (  # noqa: E402
    TFMobileBertForMaskedLM,
    TFMobileBertForMultipleChoice,
    TFMobileBertForNextSentencePrediction,
    TFMobileBertForPreTraining,
    TFMobileBertForPreTrainingOutput,
    TFMobileBertForQuestionAnswering,
    TFMobileBertForSequenceClassification,
    TFMobileBertForTokenClassification,
    TFMobileBertMainLayer,
    TFMobileBertModel,
    TFMobileBertPreTrainedModel,
)
from pocketbert.tf.squeezebert import (  # noqa: E402
    TFSqueezeBertForMaskedLM,
    TFSqueezeBertForMultipleChoice,
    TFSqueezeBertForPreTraining,
    TFSqueezeBertForQuestionAnswering,
    TFSqueezeBertForSequenceClassification,
    TFSqueezeBertForTokenClassification,
    TFSqueezeBertMainLayer,
    TFSqueezeBertModel,
    TFSqueezeBertPreTrainedModel,
)

__all__ = [
    "TFMobileBertForMaskedLM",
    "TFMobileBertForMultipleChoice",
    "TFMobileBertForNextSentencePrediction",
    "TFMobileBertForPreTraining",
    "TFMobileBertForPreTrainingOutput",
    "TFMobileBertForQuestionAnswering",
    "TFMobileBertForSequenceClassification",
    "TFMobileBertForTokenClassification",
    "TFMobileBertMainLayer",
    "TFMobileBertModel",
    "TFMobileBertPreTrainedModel",
    "TFSqueezeBertForMaskedLM",
    "TFSqueezeBertForMultipleChoice",
    "TFSqueezeBertForPreTraining",
    "TFSqueezeBertForQuestionAnswering",
    "TFSqueezeBertForSequenceClassification",
    "TFSqueezeBertForTokenClassification",
    "TFSqueezeBertMainLayer",
    "TFSqueezeBertModel",
    "TFSqueezeBertPreTrainedModel",
]
