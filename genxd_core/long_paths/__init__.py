"""Long camera paths: more cameras than the network takes at once, group after group (App. H)."""
