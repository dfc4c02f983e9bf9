"""From raw clips to clips with cameras, depth and measured object motion (CamVid-30K, Sec. 3)."""
