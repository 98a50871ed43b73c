"""HTTP: each module is one noun of the API. A route reads its request, calls one use case, and answers."""
