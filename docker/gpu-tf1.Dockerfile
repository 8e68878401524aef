# The program on GPUs with TensorFlow 1.13 and CUDA 10.0, as in 2019 (GPUs up to Turing). From the top of the repository:
#   docker build -f docker/gpu-tf1.Dockerfile -t lm-human-preferences:gpu-tf1 .
#   docker run --rm --gpus all -v "$PWD/save:/save" lm-human-preferences:gpu-tf1 train_policy demo demo-run --save_dir=/save
FROM nvidia/cuda:10.0-cudnn7-runtime-ubuntu18.04 AS cuda

FROM python:3.7-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make openssh-client procps \
    && rm -rf /var/lib/apt/lists/*

# Libraries of an older system run on a newer one; the image of CUDA 10.0 has no Python 3.7.
COPY --from=cuda /usr/local/cuda-10.0/lib64/ /usr/local/cuda-10.0/lib64/
COPY --from=cuda /usr/lib/x86_64-linux-gnu/libcudnn.so.7* /usr/local/cuda-10.0/lib64/
ENV LD_LIBRARY_PATH=/usr/local/cuda-10.0/lib64
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

RUN useradd --create-home --uid 1000 user \
    && install -d -o user -g user /save /opt/lm-human-preferences
USER 1000
WORKDIR /opt/lm-human-preferences

# The environment first: it changes less often than the program.
COPY --chown=user:user Makefile Pipfile Pipfile.lock ./
RUN make environment SECTIONS=py37-gpu && rm -rf "$HOME/.cache/pip"

COPY --chown=user:user launch.py LICENSE ./
COPY --chown=user:user lm_human_preferences/ lm_human_preferences/

VOLUME /save
ENTRYPOINT ["/opt/lm-human-preferences/.venv/bin/python", "/opt/lm-human-preferences/launch.py"]
CMD ["help"]
