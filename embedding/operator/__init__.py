"""What an operator may have a worker do: look at its GPU and its folders, and fetch models."""
