"""The registry: git, Git LFS and the Hub API over one set of commits."""
