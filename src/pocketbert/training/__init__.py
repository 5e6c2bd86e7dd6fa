"""The training loop and what it needs: objectives, the optimiser, the state on disk, the progress bar."""
