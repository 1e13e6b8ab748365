"""The container commands that build an engine or serve a repository."""
