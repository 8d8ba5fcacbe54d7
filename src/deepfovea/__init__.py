"""DeepFovea++: foveated video reconstruction and super-resolution."""
