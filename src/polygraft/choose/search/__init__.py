"""`merge search`: which layers from which expert, found by evaluation and confirmed on items that took no part in the choice."""
