"""Language models behind one seam, `interfaces.Engine`: in this process, or on a Triton server."""
