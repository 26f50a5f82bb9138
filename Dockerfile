# The worker and its weights in one image, for RunPod Serverless (linux/amd64).
#
#   scripts/build_worker.sh TAG [ARGUMENT...]                       the way that says which commit is inside
#   docker build -t clip-embedding-worker .                         ViT-B-32, openai
#   docker build --build-arg CLIP_MODEL_NAME=ViT-L-14 ...           another model, by open_clip's name and tag
#   docker build --build-arg CLIP_MODEL_NAME= ...                   the demo model: no weights are downloaded
#   docker build --build-arg TORCH_INDEX=URL ...                    torch from the PyTorch index of another CUDA;
#                                                                   PyPI's needs a driver that has CUDA 13
#   docker run --rm -e RUNPOD_SERVERLESS=0 clip-embedding-worker    the smoke test; exit status 0 or 1

# Any Debian or Ubuntu with Python 3.11 or newer and its venv module: torch's wheels bring the CUDA libraries.
ARG BASE=python:3.12.13-slim-bookworm
ARG CLIP_MODEL_NAME=ViT-B-32
ARG CLIP_PRETRAINED=openai

# torch is most of the image. It gets a layer of its own, which only another torch replaces.
FROM --platform=linux/amd64 ${BASE} AS pins
COPY requirements.txt /
RUN grep -E '^torch(vision)?==' /requirements.txt > /torch.txt

FROM --platform=linux/amd64 ${BASE} AS packages
ENV PATH=/opt/venv/bin:$PATH
RUN python3 -m venv /opt/venv
COPY --from=pins /torch.txt /tmp/
ARG TORCH_INDEX=
# Triton, 640 MB, compiles for torch.compile, which is not used here. Without it pip would follow torch's
# dependencies and bring it back, so then it follows none: constraints.txt names all the others.
# 450 MB more go with it: what builds extensions (headers, protoc, static libraries), triton's ptxas and NVSHMEM's
# device code, profiling (nvperf, pcsampling, checkpoint), a second nvrtc, cuSOLVER for many GPUs, and the tests of
# packages. No library in the image is linked to any of it, and nothing that embeds opens it.
# Left alone: cusparseLt, NCCL, cuFFT, cuSOLVER and the others that torch opens when it is imported, all of cuDNN,
# and the bytecode, 220 MB, without which every start takes a second longer.
RUN pip install --no-cache-dir --progress-bar off ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
      -r /tmp/torch.txt && \
    pip uninstall --yes triton && \
    cd /opt/venv/lib/python3*/site-packages && \
    rm -rf torch/include torch/share torch/bin/ptxas torch/bin/protoc* nvidia/*/lib/*.a \
      nvidia/*/lib/libcusolverMg.so* nvidia/*/lib/libnvrtc*.alt.so* nvidia/*/lib/libnvshmem_device.* \
      nvidia/*/lib/libnvperf_*.so* nvidia/*/lib/libpcsamplingutil.so* nvidia/*/lib/libcheckpoint.so* && \
    find numpy sympy networkx -type d -name tests -prune -exec rm -rf {} +
COPY requirements.txt constraints.txt /tmp/
RUN pip install --no-cache-dir --progress-bar off --no-deps -r /tmp/requirements.txt -r /tmp/constraints.txt

# Built apart, so that a change of the code leaves the layer with the weights as it was.
FROM packages AS weights
ARG CLIP_MODEL_NAME
ARG CLIP_PRETRAINED
WORKDIR /app
COPY embedding embedding
RUN mkdir /models && if [ -n "$CLIP_MODEL_NAME" ]; then set -e; \
      name='import sys; from embedding.model.weights import folder_name; print(folder_name(*sys.argv[1:]))'; \
      folder=$(python -c "$name" "$CLIP_MODEL_NAME" "$CLIP_PRETRAINED"); \
      python -m embedding prepare --model "$CLIP_MODEL_NAME" --pretrained "$CLIP_PRETRAINED" \
        --out "/models/$folder"; \
    fi

FROM packages
# A network volume belongs to root: this user reads weights there but cannot write them (download_models).
# For a worker that writes there, build with RUN_AS=root.
ARG RUN_AS=worker
RUN useradd --create-home worker
COPY --from=weights /models /models
WORKDIR /app
COPY handler.py ./
COPY embedding embedding
RUN python -m compileall -q handler.py embedding

ARG CLIP_MODEL_NAME
ARG CLIP_PRETRAINED
ARG GIT_COMMIT=
ARG BUILD_TIME=
# buildah's and podman's caches look at build arguments where a command runs, and nowhere else. Without this one
# an image could tell the commit of the one before it.
RUN true
# NVIDIA's two variables bring the driver and nvidia-smi into a base that is not NVIDIA's.
# A look-up that hangs holds a thread until the resolver gives up: after 2 s for each name server, not 10.
ENV RES_OPTIONS="timeout:1 attempts:2"
ENV RUNPOD_SERVERLESS=1 \
    RUNPOD_LOG_LEVEL=INFO \
    PYTHONUNBUFFERED=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    CLIP_MODEL_NAME=${CLIP_MODEL_NAME} \
    CLIP_PRETRAINED=${CLIP_MODEL_NAME:+$CLIP_PRETRAINED} \
    WORKER_GIT_COMMIT=${GIT_COMMIT} \
    WORKER_BUILD_TIME=${BUILD_TIME}
LABEL org.opencontainers.image.title="CLIP embedding worker" \
      org.opencontainers.image.revision=${GIT_COMMIT} \
      org.opencontainers.image.created=${BUILD_TIME}

# With WORKER_MODE=http.
EXPOSE 8000
USER ${RUN_AS}
CMD ["python", "-u", "-X", "faulthandler", "handler.py"]
