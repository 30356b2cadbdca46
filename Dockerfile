# One image for the API, the worker, the set-up and the demo users; Compose chooses by command.

FROM python:3.11-slim AS build
WORKDIR /app
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY pyproject.toml requirements.lock ./
# uv at its locked version and hash, then what the service itself needs. The lock, given as a constraint, pins every
# version, and --require-hashes checks each download against it; development tools stay out.
RUN awk '/^uv==/ { on = 1; print; next } /^[^ ]/ { on = 0 } on' requirements.lock > uv.lock \
    && pip install --no-cache-dir --require-hashes --requirement uv.lock \
    && uv venv .venv \
    && uv pip install --no-cache --compile-bytecode --require-hashes \
        --constraint requirements.lock --requirement pyproject.toml

FROM python:3.11-slim
WORKDIR /app
# A number, so that an orchestrator can tell that it is not root.
RUN groupadd --system --gid 10001 wallet \
    && useradd --system --uid 10001 --gid wallet --no-create-home --shell /usr/sbin/nologin wallet \
    # A new volume gets the owner of the folder that it is mounted over.
    && install --directory --owner wallet --group wallet --mode 0700 /evidence
COPY --from=build /app/.venv .venv
# The API tells its version.
COPY pyproject.toml ./
COPY service service
COPY workers workers
COPY seed seed
COPY scripts scripts
ENV PATH="/app/.venv/bin:$PATH" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNODEBUGRANGES=1 \
    PYTHONUNBUFFERED=1 \
    WALLET_ENV=production
# A name server that does not answer (resolv.conf(5)): the thread that asks for a webhook's host comes back soon.
ENV RES_OPTIONS="timeout:1 attempts:2"
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
# The number of processes comes from WEB_CONCURRENCY, which uvicorn reads itself; the rest stands in
# scripts/service_stack.py too, and a test compares.
CMD ["python", "-m", "uvicorn", "--factory", "service.main:create_app", "--host", "0.0.0.0", "--port", "8000", \
     "--loop", "uvloop", "--http", "service.controllers.http_protocol:GuardedHttpProtocol", \
     "--ws", "service.controllers.socket_protocol:GuardedSocketProtocol", \
     "--no-access-log", "--no-server-header", "--no-proxy-headers", \
     "--timeout-keep-alive", "75", "--timeout-graceful-shutdown", "10"]
