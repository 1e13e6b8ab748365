"""Model repositories: templates, wiring, and how `make repo` puts them together."""
