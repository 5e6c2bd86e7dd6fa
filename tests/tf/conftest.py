"""TensorFlow takes seconds to import, so tests do it, and no module; quietly, and for Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
