"""The demo's engine: SmolLM2-135M, from a package."""
