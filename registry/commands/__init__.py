"""What the commands of `weightroom` do."""
