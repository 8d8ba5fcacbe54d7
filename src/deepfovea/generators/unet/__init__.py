"""The recurrent U-Nets: DeepFovea++ as published, and its ancestor DeepFovea."""
