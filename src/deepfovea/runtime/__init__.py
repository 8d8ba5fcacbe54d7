"""The engines that run a generator, and its export."""
