# docker build --file docker/gpu.Dockerfile --tag sketchify-rt:gpu .
# docker run --rm --gpus all --volume "$PWD:/data" --volume sketchify-cache:/cache \
#   sketchify-rt:gpu convert scans/ -o out --device cuda
#
# CUDA's libraries come as wheels; the driver, for CUDA 13, comes from the host.

FROM python:3.13-slim AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN python -m venv --without-pip /opt/sketchify-rt \
    && pip --python /opt/sketchify-rt/bin/python install --no-cache-dir '.[gpu]'

FROM python:3.13-slim
# Triton compiles the C code that starts its kernels at the first use.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/sketchify-rt /opt/sketchify-rt
# Kernels and engines, kept from one container to the next by a volume.
RUN useradd --uid 1000 --create-home sketchify && install --directory --owner 1000 /cache
# The capability "video" brings libnvcuvid, which nvJPEG needs for the JPEG engine that some cards have.
ENV PATH=/opt/sketchify-rt/bin:$PATH \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility,video \
    NVIDIA_VISIBLE_DEVICES=all \
    NUMBA_CACHE_DIR=/cache/numba \
    SKETCHIFY_CACHE=/cache \
    TRITON_CACHE_DIR=/cache/triton
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["sketchify-rt"]
CMD ["--help"]
