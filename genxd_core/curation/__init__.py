<<<<<<< HEAD
"""From raw clips to clips with cameras, depth and measured object motion (CamVid-30K, Sec. 3)."""
=======
"""The curation of video: masks, cameras, depth, motion (Sec. 3)."""
>>>>>>> h_i
