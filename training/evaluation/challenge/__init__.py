"""Any bundle on any tree of DCASE Task 2, judged as the official evaluators judge."""
