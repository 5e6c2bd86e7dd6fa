"""What is wrong with a table of labelled texts, before anything is trained on it; without PyTorch."""
