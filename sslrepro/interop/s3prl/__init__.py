"""Our runs as upstreams of S3PRL, so that SUPERB's own tools score them (docs/interop.md)."""
