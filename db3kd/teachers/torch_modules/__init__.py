"""Teachers made of torch modules, and the files that hold them."""
