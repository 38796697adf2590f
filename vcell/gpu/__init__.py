"""GPUs through NVML. The only package that imports pynvml; torch is not needed to count devices."""
