"""A path tracer that traces only the pixels that the fovea needs: see docs/path-tracing.md."""
