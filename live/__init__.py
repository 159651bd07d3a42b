"""Roof, production side: exported policies and all that trades with them.

Only `export` imports JAX: it writes a policy as one ONNX file, the bundle. `policy` runs a bundle
bar by bar with onnxruntime and NumPy alone.
"""
