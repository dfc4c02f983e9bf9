"""The curation of video: masks, cameras, depth, motion (Sec. 3)."""
