"""The kinds of change, a room each; `chaos.change` is the closed set of them."""
