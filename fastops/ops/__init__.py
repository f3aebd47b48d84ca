"""One module or package for each family of operations. Families never import one another."""
