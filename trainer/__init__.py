"""Training of GenXD: data, loss, loop, recipes. Run `python -m trainer --help`."""
