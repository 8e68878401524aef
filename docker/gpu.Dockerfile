# The program on GPUs with TensorFlow 2.15; the lock brings CUDA 12.2, the host needs only a driver and NVIDIA's runtime:
#   docker build -f docker/gpu.Dockerfile -t lm-human-preferences:gpu .
#   docker run --rm --gpus all -v "$PWD/save:/save" lm-human-preferences:gpu train_policy demo demo-run --save_dir=/save
FROM python:3.11-slim-bookworm

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev make openssh-client procps \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 user \
    && install -d -o user -g user /save /opt/lm-human-preferences
USER 1000
WORKDIR /opt/lm-human-preferences
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# The environment first: it changes less often than the program.
COPY --chown=user:user Makefile Pipfile Pipfile.lock ./
RUN make environment SECTIONS=cuda && rm -rf "$HOME/.cache/pip"

COPY --chown=user:user launch.py LICENSE ./
COPY --chown=user:user lm_human_preferences/ lm_human_preferences/

VOLUME /save
ENTRYPOINT ["/opt/lm-human-preferences/.venv/bin/python", "/opt/lm-human-preferences/launch.py"]
CMD ["help"]
