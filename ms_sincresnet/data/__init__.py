"""Files to manifests to clips."""
