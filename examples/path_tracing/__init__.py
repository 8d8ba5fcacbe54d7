"""A path tracer that traces only pixels sampled foveally: see docs/path-tracing.md."""
