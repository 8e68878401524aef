# The program on CPUs, with the exact versions of Pipfile.lock. From the top of the repository:
#   docker build -f docker/cpu.Dockerfile -t lm-human-preferences .
#   docker run --rm -v "$PWD/save:/save" lm-human-preferences train_policy demo demo-run --save_dir=/save
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

# The environment first: it changes less often than the program.
COPY --chown=user:user Makefile Pipfile Pipfile.lock ./
RUN make environment && rm -rf "$HOME/.cache/pip"

COPY --chown=user:user launch.py LICENSE ./
COPY --chown=user:user lm_human_preferences/ lm_human_preferences/

VOLUME /save
ENTRYPOINT ["/opt/lm-human-preferences/.venv/bin/python", "/opt/lm-human-preferences/launch.py"]
CMD ["help"]
