"""StreamNet: a causal network that carries frames along their motion."""
