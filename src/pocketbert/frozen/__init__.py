"""Linear heads on the vectors of an encoder that is not trained: a first model in seconds, without PyTorch."""
