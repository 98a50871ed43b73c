"""What Offkey does for a request: decode, embed, search, score, enroll. Knows no HTTP."""
