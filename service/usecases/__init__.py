"""Implement what Offkey does for a request: decode, embed, search, score, enroll. Independent of the protocol."""
