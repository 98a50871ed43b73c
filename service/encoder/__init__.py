"""Encoders of model bundles: from waveforms to embeddings."""
