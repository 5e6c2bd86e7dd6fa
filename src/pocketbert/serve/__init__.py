"""HTTP: the pipelines as a service, with a page to try them."""
