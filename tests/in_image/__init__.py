"""What scripts/image_test.sh runs inside the image, where this folder and the loopback RunPod are mounted."""
