"""TensorFlow takes seconds to import, so only where these tests run; quietly, and for Keras."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"
