"""Turn audio files into waveforms."""
