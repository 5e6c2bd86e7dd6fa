"""ONNX files, for ONNX Runtime, OpenVINO and browsers."""
