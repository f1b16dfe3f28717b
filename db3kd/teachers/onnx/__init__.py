"""Teachers made of ONNX files."""
