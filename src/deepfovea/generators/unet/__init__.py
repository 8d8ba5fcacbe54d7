"""The recurrent U-Nets of the published system."""
