"""The models in PyTorch: one file a family, heads written once, official parameter names."""
