"""MobileNetV2: image classification."""
