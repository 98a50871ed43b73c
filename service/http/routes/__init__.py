"""Routes of the API, one module for each noun. A route reads its request, calls one use case, and answers."""
