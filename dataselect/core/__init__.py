"""What everything else speaks of: pieces, fingerprints, errors. No files, no numba, no engines."""
