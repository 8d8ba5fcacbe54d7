"""How good is a reconstruction: losses, discriminators and metrics, which judge tensors."""
