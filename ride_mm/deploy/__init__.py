"""A trained model as ONNX graphs that run without PyTorch."""
