"""Sentence encoders and cross encoders in sentence-transformers' layout, without PyTorch."""
