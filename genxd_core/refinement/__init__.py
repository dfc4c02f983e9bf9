"""Videos refined in 4D mode, window after window, and videos of many views (App. C and D)."""
