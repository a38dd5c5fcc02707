"""The front door of fick: compile, load, estimate."""
