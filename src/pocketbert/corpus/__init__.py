"""Raw text → a prepared corpus on disk → pretraining batches."""
