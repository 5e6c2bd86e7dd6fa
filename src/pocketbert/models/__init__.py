"""The models in PyTorch: one file per family, shared heads, official parameter names."""
