"""Decoding of audio files to waveforms. `decoder.py` is the entry point."""
