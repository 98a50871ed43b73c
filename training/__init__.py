"""The offline half of Offkey: trains students that retain the mixture, and exports them as model bundles."""
