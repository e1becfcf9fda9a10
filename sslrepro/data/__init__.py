"""Corpora and what is made of them: manifests, audio, batches by seconds, masks, targets."""
