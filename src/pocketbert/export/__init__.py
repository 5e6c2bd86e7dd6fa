"""Models for other engines, each proved by being run."""
