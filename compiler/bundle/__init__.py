"""The file that a model becomes: machine code, plan, weights and a manifest, and how each of them is made."""
