"""The command `trellis`, and the tools of the folder tools/."""
