"""The GenXD network: configuration, blocks, assembly, weights."""
