"""Everything that `make gpu` measures on a GPU. It imports torch, NumPy and safetensors only."""
