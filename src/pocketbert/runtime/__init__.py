"""Running models without PyTorch: a model becomes a plan, and an interpreter executes the plan."""
