"""One adapter a published layout; `open_dataset` finds them by name."""
