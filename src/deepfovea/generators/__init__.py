"""The networks: samples and mask in, frames out, state as a value."""
